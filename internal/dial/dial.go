// Package dial is the one way out of the server. It decides about the address
// that a connection is really made to, after the name was resolved, so that no
// name and no change of an answer between check and use leads elsewhere.
package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
)

// DefaultTimeout bounds the making of one connection, its look-up included.
const DefaultTimeout = 5 * time.Second

// Resolver finds the addresses of a name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer makes connections within a policy. It is safe for concurrent use.
type Dialer struct {
	Policy   Policy
	Timeout  time.Duration // DefaultTimeout when zero
	Resolver Resolver      // net.DefaultResolver when nil
	// Through makes the connection to an address that the policy permits, where another dialer's policy
	// must permit it, too; the system does when it is nil.
	Through func(ctx context.Context, network, address string) (net.Conn, error)
}

// DialContext connects to "host:port" over tcp, tcp4 or tcp6, or to the path of
// a Unix socket where the policy allows these. The name is resolved once; if any
// of its addresses is refused, no connection is made; else the addresses are
// tried in their order.
//
// The error is an invalid_config where trying again cannot help, else an
// engine_unavailable. Neither holds more of the address than host and port.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	timeout := d.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	var ipNetwork string
	switch network {
	case "tcp":
		ipNetwork = "ip"
	case "tcp4":
		ipNetwork = "ip4"
	case "tcp6":
		ipNetwork = "ip6"
	case "unix":
		return d.dialUnix(ctx, address)
	default:
		return nil, fault.New(fault.InvalidConfig, "connect over %.20q: only tcp and unix are possible", network)
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	addresses, err := d.resolve(ctx, ipNetwork, host)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if reason := d.Policy.refuse(netip.AddrPortFrom(a, port)); reason != "" {
			return nil, fault.New(fault.InvalidConfig, "connect to %s, port %d: it is %s, where no connections are made", host, port, reason)
		}
	}
	return d.dialFirst(ctx, network, host, port, addresses)
}

// dialFirst tries the addresses in turn; each gets its share of the time left,
// so that one that swallows packets does not hide the next.
func (d *Dialer) dialFirst(ctx context.Context, network, host string, port uint16, addresses []netip.Addr) (net.Conn, error) {
	through := d.Through
	if through == nil {
		through = new(net.Dialer).DialContext
	}
	var last error
	for i, a := range addresses {
		attempt, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			attempt, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addresses)-i))
		}
		conn, err := through(attempt, network, netip.AddrPortFrom(a, port).String())
		cancel()
		if err == nil {
			return conn, nil
		}
		last = err
	}
	if errors.Is(last, fault.InvalidConfig) {
		return nil, last
	}
	return nil, fault.New(fault.EngineUnavailable, "connect to %s, port %d: %s", host, port, describe(last)).Because(last)
}

func (d *Dialer) dialUnix(ctx context.Context, path string) (net.Conn, error) {
	if !d.Policy.Unix {
		return nil, fault.New(fault.InvalidConfig, "connect to a Unix socket: that is not allowed here; use a host name")
	}
	if !filepath.IsAbs(path) {
		return nil, fault.New(fault.InvalidConfig, "connect to a Unix socket: its path must begin with a slash")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fault.New(fault.EngineUnavailable, "connect to a Unix socket: %s", describe(err)).Because(err)
	}
	return conn, nil
}

func (d *Dialer) resolve(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	var resolver Resolver = net.DefaultResolver
	if d.Resolver != nil {
		resolver = d.Resolver
	}
	addresses, err := resolver.LookupNetIP(ctx, network, host)
	if err != nil || len(addresses) == 0 {
		why := "its name has no address"
		if ctx.Err() != nil {
			why = "its name was not resolved in time"
		}
		return nil, fault.New(fault.EngineUnavailable, "connect to %s: %s", host, why).Because(err)
	}
	return addresses, nil
}

// splitAddress takes "host:port" apart. What it is not sure to be one, it does
// not repeat: it may be a URL with a password.
func splitAddress(address string) (string, uint16, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fault.New(fault.InvalidConfig, "connect: the address is not of the form host:port")
	}
	if host == "" || len(host) > 253 || strings.IndexFunc(host, notInHost) >= 0 {
		return "", 0, fault.New(fault.InvalidConfig, "connect: the host is neither a name nor an address")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return "", 0, fault.New(fault.InvalidConfig, "connect to %s: the port must be a number from 1 to 65535", host)
	}
	return host, uint16(port), nil
}

func notInHost(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(".-_:%", r))
}

// describe says why no connection came about, in our own words.
func describe(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused; is the server running there?"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "there is no answer in time"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to it"
	case errors.Is(err, os.ErrNotExist):
		return "it does not exist; is the server running there?"
	case errors.Is(err, os.ErrPermission):
		return "the system does not permit it"
	case errors.Is(err, context.Canceled):
		return "the request was cancelled"
	default:
		return "the connection failed"
	}
}
