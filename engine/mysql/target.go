package mysql

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

const (
	placeholders = "{{username}}:{{password}}@"
	defaultPort  = "3306"
)

// How a connection is protected. Nothing unverified is offered: to log in by
// caching_sha2_password is to send the password itself through the tunnel, to
// whoever is at its other end.
const (
	tlsOff      = "false"
	tlsFull     = "true"
	tlsVerifyCA = "verify-ca" // the certificate may be for another host, as those are that MySQL makes itself
)

// target is where a connection URL points, without any secret.
type target struct {
	hosts    []string // host:port; the first that takes changes is used
	database string   // may be empty
	tls      string
}

// String is the URL without credentials: who changes it sends the root secret
// somewhere else, or less well protected.
func (t target) String() string {
	return "mysql://" + strings.Join(t.hosts, ",") + "/" + url.PathEscape(t.database) + "?tls=" + t.tls
}

// parseTarget reads a connection URL, or the driver's own form of it. It takes
// what it knows and refuses all else: the driver's parameters read local files,
// send passwords in clear and set variables of the session, and none of that is
// the business of a configuration that arrives over the network.
func parseTarget(text string, certificates bool) (target, error) {
	rest, isURL := strings.CutPrefix(text, "mysql://")
	rest, ok := strings.CutPrefix(rest, placeholders)
	if !ok || strings.Contains(rest, "@") {
		return target{}, engine.Invalid("connection_url must name its credentials as mysql://%shost:3306/: a literal user or password does not belong there", placeholders)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, slash := strings.Cut(rest, "/")
	if !isURL {
		inner, ok := strings.CutPrefix(authority, "tcp(")
		if authority, _ = strings.CutSuffix(inner, ")"); !ok || authority == inner || !slash {
			return target{}, engine.Invalid("connection_url is neither mysql://%shost:3306/ nor %stcp(host:3306)/", placeholders, placeholders)
		}
	}
	database, err := url.PathUnescape(path)
	if err != nil || strings.ContainsAny(database, "/\x00{}@") || len(database) > maxIdentifier {
		return target{}, engine.Invalid("connection_url names no database after the last /: it may be left out")
	}
	t := target{database: database}
	for part := range strings.SplitSeq(authority, ",") {
		host, port, err := engine.ParseHost(part, defaultPort)
		if err != nil {
			return target{}, err
		}
		t.hosts = append(t.hosts, net.JoinHostPort(host, strconv.Itoa(int(port))))
	}
	return t, t.protect(query, certificates)
}

// protect reads the parameters. Without any, only what cannot leave the machine
// goes in clear.
func (t *target) protect(query string, certificates bool) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return engine.Invalid("connection_url: the part after ? is not well formed")
	}
	for name, given := range values {
		if name != "tls" {
			return engine.Invalid("connection_url: parameter %q is not taken; tls is, certificates are given by tls_ca_path and tls_cert_path", name)
		}
		if len(given) != 1 {
			return engine.Invalid("connection_url gives tls twice")
		}
		t.tls = given[0]
	}
	switch t.tls {
	case tlsOff, tlsFull, tlsVerifyCA:
	case "skip-verify", "preferred":
		return engine.Invalid("connection_url: tls=%s would send the password to whoever answers; write tls=true or tls=verify-ca, and name the authority in tls_ca_path", t.tls)
	case "":
		if t.tls = tlsFull; !certificates && !slices.ContainsFunc(t.hosts, remote) {
			t.tls = tlsOff
		}
	default:
		return engine.Invalid("connection_url: tls is none of true, verify-ca and false")
	}
	return nil
}

// remote tells whether what is sent to the address can leave the machine.
func remote(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err != nil || !engine.Loopback(host)
}
