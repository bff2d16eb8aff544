package dial

import (
	"net"
	"net/netip"
	"slices"
)

// Policy says where a [Dialer] may connect to. Its zero value is for outbound
// web requests: public addresses only.
//
// Link-local, multicast, unspecified and reserved addresses, the metadata
// services of the clouds and this server's own listeners are refused under
// every policy, also where an IPv6 address only carries such an IPv4 one.
type Policy struct {
	// Private allows loopback, private and shared addresses: databases live
	// there.
	Private bool
	// Allowed are the loopback or private ranges that are allowed where Private
	// is not set.
	Allowed []netip.Prefix
	// Own are the addresses this server listens on. An unspecified address
	// stands for every address of this machine.
	Own []netip.AddrPort
	// Unix allows Unix sockets.
	Unix bool
}

// refuse answers why a connection may not be made; empty if it may.
func (p Policy) refuse(to netip.AddrPort) string {
	addr := to.Addr().WithZone("").Unmap()
	if reason := p.refuseAddr(addr); reason != "" {
		return reason
	}
	if inner, ok := carried(addr); ok {
		if !inner.IsValid() {
			return "a translated address"
		}
		if reason := p.refuseAddr(inner); reason != "" {
			return reason
		}
		if p.own(netip.AddrPortFrom(inner, to.Port())) {
			return "an address of this server itself"
		}
	}
	if p.own(netip.AddrPortFrom(addr, to.Port())) {
		return "an address of this server itself"
	}
	return ""
}

func (p Policy) refuseAddr(addr netip.Addr) string {
	for _, never := range neverAllowed {
		if never.prefix.Contains(addr) {
			return never.reason
		}
	}
	if p.Private || !within(notPublic, addr) || within(p.Allowed, addr) {
		return ""
	}
	return "a private address"
}

func (p Policy) own(to netip.AddrPort) bool {
	return slices.ContainsFunc(p.Own, func(own netip.AddrPort) bool {
		if own.Port() != to.Port() {
			return false
		}
		if own.Addr().IsUnspecified() {
			return ofThisMachine(to.Addr())
		}
		return own.Addr().Unmap().WithZone("") == to.Addr()
	})
}

// ofThisMachine tells whether packets to addr end here. Where the interfaces
// cannot be read it says yes.
func ofThisMachine(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(interfaces, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap().WithZone("") == addr
	})
}

func within(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// carried answers the IPv4 address to which a translator or tunnel may bring
// what is sent to an IPv6 address. It is invalid where its place is not known.
func carried(addr netip.Addr) (inner netip.Addr, ok bool) {
	if !addr.Is6() {
		return netip.Addr{}, false
	}
	b := addr.As16()
	ipv4 := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(b[at : at+4])) }
	switch {
	case addr.IsLoopback():
		return netip.Addr{}, false
	case nat64.Contains(addr), siit.Contains(addr), compatible.Contains(addr):
		return ipv4(12), true
	case sixToFour.Contains(addr):
		return ipv4(2), true
	case localNAT64.Contains(addr), teredo.Contains(addr):
		return netip.Addr{}, true
	case (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
		return ipv4(12), true
	default:
		return netip.Addr{}, false
	}
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	siit       = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291, deprecated
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
)

// neverAllowed is refused under every policy.
var neverAllowed = []struct {
	prefix netip.Prefix
	reason string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"},
	{netip.MustParsePrefix("::/128"), "an unspecified address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"}, // metadata of AWS, Azure, GCP and others
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("fec0::/10"), "a site-local address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},        // broadcast included
	{netip.MustParsePrefix("fd00:ec2::/32"), "a metadata service"},      // AWS, ::254 and its neighbours
	{netip.MustParsePrefix("fd20:ce::254/128"), "a metadata service"},   // GCP
	{netip.MustParsePrefix("100.100.100.200/32"), "a metadata service"}, // Alibaba
	{netip.MustParsePrefix("192.0.0.192/32"), "a metadata service"},     // Oracle
	{netip.MustParsePrefix("168.63.129.16/32"), "a metadata service"},   // Azure's host
}

// notPublic is what the Internet does not route.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("100.64.0.0/10"), // shared by carriers, RFC 6598
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks, RFC 2544
}
