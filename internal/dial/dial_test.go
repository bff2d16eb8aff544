package dial_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/internal/dial"
	"github.com/scaivault/scaivault/internal/fault"
)

// names is a resolver that counts its questions.
type names struct {
	answers map[string][]string
	asked   atomic.Int32
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.asked.Add(1)
	var addresses []netip.Addr
	for _, a := range n.answers[host] {
		addresses = append(addresses, netip.MustParseAddr(a))
	}
	if addresses == nil {
		return nil, errors.New("lookup postgres://root:hunter2@db: no such host")
	}
	return addresses, nil
}

// listen answers the address of a server that says "hello" to everybody.
func listen(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello") // the reader asserts what arrives
			conn.Close()
		}
	}()
	return l.Addr()
}

func TestDialReachesTheCheckedAddress(t *testing.T) {
	t.Parallel()
	server := listen(t, "tcp", "127.0.0.1:0").(*net.TCPAddr).AddrPort()
	_, port, _ := net.SplitHostPort(server.String())
	resolver := &names{answers: map[string][]string{"db.internal": {"127.0.0.1"}}}
	for name, tt := range map[string]struct {
		policy  dial.Policy
		address string
	}{
		"name":           {dial.Policy{Private: true}, "db.internal:" + port},
		"address":        {dial.Policy{Private: true}, "127.0.0.1:" + port},
		"listed range":   {dial.Policy{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, "db.internal:" + port},
		"not own":        {dial.Policy{Private: true, Own: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), server.Port()), netip.MustParseAddrPort("127.0.0.1:1")}}, "127.0.0.1:" + port},
		"mapped, listed": {dial.Policy{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, "[::ffff:127.0.0.1]:" + port},
	} {
		d := &dial.Dialer{Policy: tt.policy, Resolver: resolver}
		conn, err := d.DialContext(t.Context(), "tcp", tt.address)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, err := io.ReadAll(conn); string(text) != "hello" {
			t.Errorf("%s: read %q, %v", name, text, err)
		}
		conn.Close()
	}
	if n := resolver.asked.Load(); n != 2 {
		t.Errorf("%d names asked for, want 2: one a connection", n)
	}
}

// One refused address among several refuses all: an answer that mixes them is
// made to get around the check.
func TestDialRefusesIfAnyAddressIsRefused(t *testing.T) {
	t.Parallel()
	server := listen(t, "tcp", "127.0.0.1:0").(*net.TCPAddr)
	d := &dial.Dialer{
		Policy:   dial.Policy{Private: true},
		Resolver: &names{answers: map[string][]string{"db": {"127.0.0.1", "169.254.169.254"}}},
	}
	_, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort("db", portOf(server)))
	if !errors.Is(err, fault.InvalidConfig) {
		t.Errorf("got %v, want invalid_config", err)
	}
}

func TestDialTriesTheNextAddress(t *testing.T) {
	t.Parallel()
	server := listen(t, "tcp", "127.0.0.1:0").(*net.TCPAddr)
	d := &dial.Dialer{
		Policy:   dial.Policy{Private: true},
		Resolver: &names{answers: map[string][]string{"db": {"127.0.0.9", "127.0.0.1"}}}, // nobody listens on .9
	}
	conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort("db", portOf(server)))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func portOf(a *net.TCPAddr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	const (
		never  = iota // refused under every policy
		inside        // for databases, not for the web
		public
	)
	own := netip.MustParseAddrPort("0.0.0.0:8200")
	web, database := dial.Policy{Own: []netip.AddrPort{own}}, dial.Policy{Private: true, Own: []netip.AddrPort{own}}
	listed := dial.Policy{Allowed: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, Own: []netip.AddrPort{own}}

	for address, want := range map[string]int{
		// metadata services and what is no host
		"169.254.169.254": never, "169.254.170.2": never, "fd00:ec2::254": never, "fd20:ce::254": never, "100.100.100.200": never, "168.63.129.16": never, "192.0.0.192": never,
		"169.254.0.1": never, "fe80::1": never, "fe80::1%lo": never, "fec0::1": never,
		"0.0.0.0": never, "0.1.2.3": never, "::": never, "224.0.0.1": never, "239.255.255.250": never, "ff02::1": never, "ff0e::1": never, "255.255.255.255": never, "240.0.0.1": never,
		// the same, carried by IPv6
		"::ffff:169.254.169.254": never, "::ffff:a9fe:a9fe": never, "::169.254.169.254": never, "64:ff9b::169.254.169.254": never, "64:ff9b::a9fe:a9fe": never, "64:ff9b:1::a9fe:a9fe": never,
		"64:ff9b:1::808:808": never, "2002:a9fe:a9fe::1": never, "2001:0:4136:e378:8000:63bf:3fff:fdd2": never, "::ffff:0:a9fe:a9fe": never, "2001:db8::5efe:169.254.169.254": never, "2001:db8::200:5efe:169.254.169.254": never,
		"::ffff:0.0.0.0": never, "64:ff9b::e000:1": never, "2002:0000:0000::1": never,
		// inside
		"127.0.0.1": inside, "127.255.0.1": inside, "::1": inside, "10.0.0.1": inside, "172.16.0.1": inside, "172.31.255.255": inside, "192.168.1.1": inside, "100.64.0.1": inside, "fc00::1": inside, "fd12:3456::1": inside, "198.18.0.1": inside,
		"::ffff:127.0.0.1": inside, "::ffff:10.0.0.1": inside, "64:ff9b::10.0.0.1": inside, "2002:0a00:0001::1": inside, "2002:7f00:0001::1": inside, "::10.0.0.1": inside, "64:ff9b::127.0.0.1": inside,
		// public
		"8.8.8.8": public, "172.15.0.1": public, "172.32.0.1": public, "100.128.0.1": public, "2606:4700::1111": public, "2002:0808:0808::1": public, "64:ff9b::8.8.8.8": public, "::ffff:8.8.8.8": public,
	} {
		for name, p := range map[string]struct {
			policy dial.Policy
			from   int
		}{"web": {web, public}, "database": {database, inside}, "web with a list": {listed, inside}} {
			allowed := allows(t, p.policy, net.JoinHostPort(address, "5432"))
			if allowed != (want >= p.from) {
				t.Errorf("%s, policy %s: allowed %v", address, name, allowed)
			}
		}
		if allows(t, database, net.JoinHostPort(address, "8200")) && want == inside && (strings.Contains(address, "127.") || address == "::1") {
			t.Errorf("%s: the server's own port can be reached", address)
		}
	}
	for _, address := range []string{"[::ffff:127.0.0.1]:8200", "[64:ff9b::7f00:1]:8200", "[2002:7f00:1::1]:8200"} {
		if allows(t, database, address) {
			t.Errorf("%s: the server's own port can be reached", address)
		}
	}
	if !allows(t, database, "10.255.255.254:8200") {
		t.Error("another machine's port is taken for our own")
	}
}

// allows tells whether a policy lets a connection be tried. Its context is
// over, so that none is made.
func allows(t *testing.T, p dial.Policy, address string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := (&dial.Dialer{Policy: p}).DialContext(ctx, "tcp", address)
	switch fault.CodeOf(err) {
	case fault.EngineUnavailable:
		return true
	case fault.InvalidConfig:
		return false
	default:
		t.Fatalf("%s: %v", address, err)
		return false
	}
}

func TestDialRefusesOtherForms(t *testing.T) {
	t.Parallel()
	d := &dial.Dialer{Policy: dial.Policy{Private: true}, Resolver: &names{}}
	for address, network := range map[string]string{
		"": "tcp", "db": "tcp", ":5432": "tcp", "db:": "tcp", "db:0": "tcp", "db:65536": "tcp", "db:-1": "tcp", "db:postgres": "tcp", "db:5432x": "tcp",
		"root:hunter2@db:5432": "tcp", "root hunter2:5432": "tcp", "postgres//root-hunter2@db:5432": "tcp", "hunter2/x:5432": "tcp",
		"db:5432": "udp", "127.0.0.1:5432": "ip4:icmp", "/tmp/x": "unix", "@hunter2": "unix",
	} {
		_, err := d.DialContext(t.Context(), network, address)
		if !errors.Is(err, fault.InvalidConfig) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s %q: %v, want invalid_config without the text", network, address, err)
		}
	}
}

func TestDialDescribesFailures(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	d := &dial.Dialer{Policy: dial.Policy{Private: true, Unix: true}, Resolver: &names{}}
	for _, tt := range []struct{ network, address, says string }{
		{"tcp", closed, "refused"},
		{"tcp", "nowhere.internal:5432", "no address"},
		{"unix", filepath.Join(t.TempDir(), "none"), "does not exist"},
	} {
		_, err := d.DialContext(t.Context(), tt.network, tt.address)
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.EngineUnavailable || !strings.Contains(f.Message, tt.says) || f.Err == nil {
			t.Errorf("%s: %v, want engine_unavailable that says %q and keeps its cause", tt.address, err, tt.says)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("text of the resolver is shown: %v", err)
		}
	}
}

func TestDialUnix(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	listen(t, "unix", path)
	conn, err := (&dial.Dialer{Policy: dial.Policy{Unix: true}}).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := (&dial.Dialer{Policy: dial.Policy{Private: true}}).DialContext(t.Context(), "unix", path); !errors.Is(err, fault.InvalidConfig) {
		t.Errorf("without permission: %v", err)
	}
}

// silent is a resolver that never answers.
type silent struct{}

func (silent) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDialEndsInTime(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration]time.Duration{0: dial.DefaultTimeout, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := (&dial.Dialer{Timeout: timeout, Resolver: silent{}}).DialContext(t.Context(), "tcp", "db:5432")
			if !errors.Is(err, fault.EngineUnavailable) || time.Since(start) != want {
				t.Errorf("timeout %v: %v after %v", timeout, err, time.Since(start))
			}
		})
	}
}

// Whatever is dialled, a refusal is one of two codes, and no form of a metadata
// address passes.
func FuzzDialContext(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:1", "[::ffff:a9fe:a9fe]:80", "[fe80::1%lo]:80", "0x7f.1:80", "a@b:1", "[::]:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		d := &dial.Dialer{Policy: dial.Policy{Private: true}, Resolver: &names{}}
		conn, err := d.DialContext(ctx, "tcp", address)
		if conn != nil || fault.CodeOf(err) != fault.InvalidConfig && fault.CodeOf(err) != fault.EngineUnavailable {
			t.Fatalf("%q: %v, %v", address, conn, err)
		}
		host, _, splitErr := net.SplitHostPort(address)
		if addr, parseErr := netip.ParseAddr(host); splitErr == nil && parseErr == nil && addr.Unmap().IsLinkLocalUnicast() && !errors.Is(err, fault.InvalidConfig) {
			t.Fatalf("%q: %v", address, err)
		}
	})
}
