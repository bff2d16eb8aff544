package mongodb

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

const (
	placeholders = "{{username}}:{{password}}@"
	defaultPort  = "27017"
	adminDB      = "admin"
)

// target is where a connection URL points, without any secret.
type target struct {
	hosts      []string // host:port; with SRV the one name, whose records list them
	srv        bool
	set        string // the replica set's name; empty where it is not to be checked
	authSource string // the database that root's user is in; empty for admin, or what SRV says
	tls        bool   // and then verified
}

// String is the URL without credentials: whoever changes it sends the root secret somewhere else, or
// less well protected.
func (t target) String() string {
	scheme := "mongodb"
	if t.srv {
		scheme = "mongodb+srv"
	}
	values := url.Values{"tls": {strconv.FormatBool(t.tls)}}
	if t.set != "" {
		values.Set("replicaSet", t.set)
	}
	if t.authSource != "" {
		values.Set("authSource", t.authSource)
	}
	return scheme + "://" + strings.Join(t.hosts, ",") + "/?" + values.Encode()
}

// parseTarget reads a connection URL. It takes what it knows and refuses all else: the driver's other
// parameters change time-outs, pools, write concerns and the verification of certificates, none of
// which is the URL's business here.
func parseTarget(text string) (target, error) {
	t := target{}
	scheme, rest, ok := strings.Cut(text, "://")
	switch scheme {
	case "mongodb":
	case "mongodb+srv":
		t.srv, t.tls = true, true
	default:
		ok = false
	}
	if !ok {
		return t, engine.Invalid("connection_url does not begin with mongodb:// or mongodb+srv://")
	}
	rest, ok = strings.CutPrefix(rest, placeholders)
	if !ok || strings.Contains(rest, "@") {
		return t, engine.Invalid("connection_url must name its credentials as %s://%shost: a literal user or password does not belong there", scheme, placeholders)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if err := t.readHosts(authority); err != nil {
		return t, err
	}
	if path != "" {
		database, err := url.PathUnescape(path)
		if err != nil || badDatabase(database) != "" {
			return t, engine.Invalid("connection_url names no database that can be: %.60q", path)
		}
		t.authSource = database
	}
	return t, t.readParameters(query)
}

func (t *target) readHosts(authority string) error {
	if t.srv {
		host, _, err := engine.ParseHost(authority, defaultPort)
		if err != nil {
			return err
		}
		if host != authority || strings.Contains(host, ",") || net.ParseIP(host) != nil || strings.Count(host, ".") < 2 {
			return engine.Invalid("connection_url: mongodb+srv:// takes one name, of at least three parts and without a port")
		}
		t.hosts = []string{host}
		return nil
	}
	for part := range strings.SplitSeq(authority, ",") {
		host, port, err := engine.ParseHost(part, defaultPort)
		if err != nil {
			return err
		}
		t.hosts = append(t.hosts, net.JoinHostPort(host, strconv.Itoa(int(port))))
	}
	return nil
}

func (t *target) readParameters(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return engine.Invalid("connection_url: its parameters cannot be read")
	}
	for name, given := range values {
		value := given[0]
		switch {
		case len(given) > 1 || value == "":
			err = engine.Invalid("connection_url: the parameter %.40q is to be given once, with a value", name)
		case name == "replicaSet":
			t.set = value
		case name == "authSource" && badDatabase(value) == "":
			t.authSource = value
		case name == "tls" && value == "true":
			t.tls = true
		case name == "tls" && value == "false":
			t.tls = false
		case name == "directConnection":
			err = engine.Invalid("connection_url: directConnection would hide the other members, on which a user must be seen gone: name the set's members")
		default:
			err = engine.Invalid("connection_url: replicaSet, authSource and tls (true or false) are the parameters that are taken, not %.40q as it is; certificates are given by tls_ca_path and tls_cert_path", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// badDatabase answers what keeps a text from being the name of a database; empty if nothing does. The
// rules are the strictest, those of Windows, but for case.
func badDatabase(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > 63:
		return "is longer than 63 bytes"
	case strings.ContainsAny(name, "/\\. \"$*<>:|?\x00"):
		return `holds one of the characters / \ . " $ * < > : | ? or a space`
	}
	return ""
}
