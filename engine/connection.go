package engine

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

// Login is a secret that holds credentials.
type Login struct {
	Username string
	Password statement.Secret
}

// ReadLogin takes a login out of the fields of the secret that which names, such as "root secret".
func ReadLogin(which string, fields map[string]statement.Secret) (Login, error) {
	l := Login{fields["username"].Reveal(), fields["password"]}
	if l.Username == "" || l.Password == "" {
		return l, &Error{Kind: Misconfigured, Reason: "the " + which + " lacks its field username or password"}
	}
	return l, nil
}

// ParseHost reads one host of a connection URL, with a port or without one.
func ParseHost(text, defaultPort string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		host, digits, err = net.SplitHostPort(text + ":" + defaultPort)
	}
	if err != nil || host == "" || strings.ContainsAny(host, "/{}%\x00 ") {
		return "", 0, Invalid("connection_url names no host that can be dialled: write host:port, several separated by commas, an IPv6 address in brackets")
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, Invalid("connection_url: the port of host %s is not a number from 1 to 65535", host)
	}
	return host, uint16(n), nil
}

// Loopback tells whether what is sent to the host cannot leave the machine.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ConnectionPrefix begins the name under which a source shows the connections of one node, of all
// its epochs. It has at most 44 bytes, so that the longest epoch fits into the 63 that PostgreSQL
// keeps, and none that a source would change.
func ConnectionPrefix(installation, node string) string {
	short := installation[max(0, len(installation)-8):]
	return "scaivault/" + printable(short, 8) + "/" + printable(node, 24) + "/"
}

// printable keeps a name as it is if it can stand in the name of a connection, else gives a digest
// of it.
func printable(name string, limit int) string {
	if len(name) <= limit && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])[:limit]
}

// TLS are the settings that name the secrets in which certificates are.
type TLS struct {
	CAPath   string `json:"tls_ca_path"`
	CertPath string `json:"tls_cert_path"`
}

// Given tells whether either of them is set.
func (t TLS) Given() bool { return t.CAPath != "" || t.CertPath != "" }

// Load reads the secrets: how servers are verified, by the system's authorities where none is named,
// and what they are shown. The name that a server must have is to be added to a clone.
func (t TLS) Load(ctx context.Context, o Options) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAPath != "" {
		data, err := o.Secret(ctx, t.CAPath)
		if err != nil {
			return nil, &Error{Kind: Misconfigured, Reason: "read the secret of tls_ca_path", Err: err}
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(data["certificate"].Reveal())) {
			return nil, &Error{Kind: Misconfigured, Reason: "the secret of tls_ca_path holds no PEM certificate in its field certificate"}
		}
	}
	if t.CertPath != "" {
		data, err := o.Secret(ctx, t.CertPath)
		if err != nil {
			return nil, &Error{Kind: Misconfigured, Reason: "read the secret of tls_cert_path", Err: err}
		}
		pair, err := tls.X509KeyPair([]byte(data["certificate"].Reveal()), []byte(data["private_key"].Reveal()))
		if err != nil {
			return nil, &Error{Kind: Misconfigured, Reason: "the secret of tls_cert_path holds no matching PEM pair in its fields certificate and private_key"}
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// AnyName makes a client verify who made the server's certificate, but not for which host.
func AnyName(cfg *tls.Config) {
	cfg.InsecureSkipVerify = true // all but the name is verified below
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: cfg.RootCAs, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
}
