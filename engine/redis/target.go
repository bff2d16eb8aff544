package redis

import (
	"net"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

const (
	placeholders        = "{{username}}:{{password}}@"
	defaultPort         = "6379"
	defaultSentinelPort = "26379"
)

// target is where a connection URL points, without any secret.
type target struct {
	hosts    []string // host:port of servers, of some nodes of a cluster, or of Sentinels
	sentinel string   // the name by which Sentinels know the set; empty without Sentinels
	tls      bool     // and then verified: AUTH sends the password itself
}

// String is the URL without credentials: who changes it sends the root secret
// somewhere else, or less well protected.
func (t target) String() string {
	scheme := "redis"
	if t.tls {
		scheme = "rediss"
	}
	if t.sentinel != "" {
		scheme += "+sentinel"
	}
	return scheme + "://" + strings.Join(t.hosts, ",") + "/" + t.sentinel
}

// parseTarget reads a connection URL. It takes what it knows and refuses all
// else: the driver's parameters change time-outs, pools and the verification of
// certificates, none of which is the URL's business here.
func parseTarget(text string) (target, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	t := target{}
	sentinels := false
	switch scheme {
	case "redis":
	case "rediss":
		t.tls = true
	case "redis+sentinel":
		sentinels = true
	case "rediss+sentinel":
		t.tls, sentinels = true, true
	default:
		ok = false
	}
	if !ok {
		return t, engine.Invalid("connection_url does not begin with rediss://, redis://, rediss+sentinel:// or redis+sentinel://")
	}
	rest, ok = strings.CutPrefix(rest, placeholders)
	if !ok || strings.Contains(rest, "@") {
		return t, engine.Invalid("connection_url must name its credentials as %s://%shost:6379: a literal user or password does not belong there", scheme, placeholders)
	}
	if strings.ContainsAny(rest, "?#") {
		return t, engine.Invalid("connection_url: parameters are not taken; certificates are given by tls_ca_path and tls_cert_path")
	}
	authority, path, _ := strings.Cut(rest, "/")
	port := defaultPort
	if sentinels {
		port = defaultSentinelPort
		if t.sentinel = path; path == "" || strings.ContainsAny(path, "/ %\x00") {
			return t, engine.Invalid("connection_url names no set: write %s://%shost:26379/NAME with the name that the Sentinels watch it by", scheme, placeholders)
		}
	} else if path != "" && path != "0" {
		return t, engine.Invalid("connection_url names a database: users are of the whole server, leave it out")
	}
	for part := range strings.SplitSeq(authority, ",") {
		host, port, err := engine.ParseHost(part, port)
		if err != nil {
			return t, err
		}
		t.hosts = append(t.hosts, net.JoinHostPort(host, strconv.Itoa(int(port))))
	}
	return t, nil
}
