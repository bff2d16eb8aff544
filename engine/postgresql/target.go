package postgresql

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// The values of sslmode that mean what they say. allow and prefer are refused:
// they promise encryption and give it only where nobody interferes.
const (
	sslDefault    = ""            // encrypted; in clear only to a loopback address that offers no TLS
	sslDisable    = "disable"     // in clear
	sslRequire    = "require"     // encrypted, whoever answers
	sslVerifyCA   = "verify-ca"   // encrypted, and the certificate is of a known authority
	sslVerifyFull = "verify-full" // encrypted, and the certificate is for this host
)

const (
	placeholders = "{{username}}:{{password}}@"
	defaultPort  = "5432"
)

// target is where a connection URL points, without any secret.
type target struct {
	hosts    []hostPort
	database string
	sslmode  string
}

type hostPort struct {
	host string
	port uint16
}

// String is the URL without credentials: who changes it sends the root secret
// somewhere else, or less well protected.
func (t target) String() string {
	var hosts []string
	for _, h := range t.hosts {
		hosts = append(hosts, net.JoinHostPort(h.host, strconv.Itoa(int(h.port))))
	}
	mode := t.sslmode
	if mode == sslDefault {
		mode = "default"
	}
	return "postgresql://" + strings.Join(hosts, ",") + "/" + url.PathEscape(t.database) + "?sslmode=" + mode
}

// parseTarget reads a connection URL. It takes what it knows and refuses all
// else: libpq's parameters can read local files, name a service, or set options
// of the session, and none of that is the business of a configuration that
// arrives over the network.
func parseTarget(text string, haveCA bool) (target, error) {
	rest, ok := strings.CutPrefix(text, "postgresql://")
	if !ok {
		rest, ok = strings.CutPrefix(text, "postgres://")
	}
	if !ok {
		return target{}, engine.Invalid("connection_url does not begin with postgresql://")
	}
	rest, ok = strings.CutPrefix(rest, placeholders)
	if !ok || strings.Contains(rest, "@") {
		return target{}, engine.Invalid("connection_url must name its credentials as postgresql://%shost:5432/database: a literal user or password does not belong there", placeholders)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, ok := strings.Cut(rest, "/")
	database, err := url.PathUnescape(path)
	if !ok || err != nil || database == "" || strings.ContainsAny(database, "/\x00") {
		return target{}, engine.Invalid("connection_url names no database: write postgresql://%shost:5432/database", placeholders)
	}
	t := target{database: database}
	for part := range strings.SplitSeq(authority, ",") {
		host, port, err := engine.ParseHost(part, defaultPort)
		if err != nil {
			return target{}, err
		}
		t.hosts = append(t.hosts, hostPort{host, port})
	}
	return t, t.setParameters(query, haveCA)
}

func (t *target) setParameters(query string, haveCA bool) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return engine.Invalid("connection_url: the part after ? is not well formed")
	}
	for name, given := range values {
		if len(given) != 1 {
			return engine.Invalid("connection_url gives %s twice", name)
		}
		switch name {
		case "sslmode":
			t.sslmode = given[0]
		case "target_session_attrs":
			if given[0] != "read-write" && given[0] != "primary" {
				return engine.Invalid("connection_url: target_session_attrs can only be read-write, which always holds here")
			}
		default:
			return engine.Invalid("connection_url: parameter %q is not taken; sslmode is, certificates are given by tls_ca_path and tls_cert_path", name)
		}
	}
	switch t.sslmode {
	case sslDefault:
		if haveCA {
			t.sslmode = sslVerifyFull
		}
	case sslDisable, sslRequire, sslVerifyCA, sslVerifyFull:
	case "allow", "prefer":
		return engine.Invalid("connection_url: sslmode=%s falls back to clear text; choose disable, require, verify-ca or verify-full", t.sslmode)
	default:
		return engine.Invalid("connection_url: sslmode is none of disable, require, verify-ca, verify-full")
	}
	return nil
}
