package mongodb

import (
	"encoding/json"
	"net"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// config is the engine's part of a configuration, as docs/engines/mongodb.md describes it.
type config struct {
	engine.Settings
	engine.TLS
	ConnectionURL  string   `json:"connection_url"`
	AllowPlaintext bool     `json:"allow_plaintext"`
	GoneNodes      []string `json:"gone_nodes"`

	target target                  // the parsed ConnectionURL
	names  *statement.NameTemplate // the parsed UsernameTemplate; nil for the usual names
}

// parseConfig decodes and checks; after it every optional field has its value.
func parseConfig(raw json.RawMessage) (*config, error) {
	c := &config{}
	if err := engine.Decode(raw, c); err != nil {
		return nil, err
	}
	if err := c.Complete(typeName); err != nil {
		return nil, err
	}
	var err error
	if c.target, err = parseTarget(c.ConnectionURL); err != nil {
		return nil, err
	}
	if c.names, err = c.NameTemplate(maxNameBytes); err != nil {
		return nil, err
	}
	if err := (engine.Rules{
		{c.TLS.Given() && !c.target.tls, "tls_ca_path and tls_cert_path need TLS: write tls=true in connection_url"},
		{slices.ContainsFunc(c.GoneNodes, badAddress), "gone_nodes holds what is not host:port"},
		{slices.ContainsFunc(c.target.hosts, atlas), "connection_url leads to MongoDB Atlas, where only Atlas' own API makes users: " + noAtlas},
	}).Check(); err != nil {
		return nil, err
	}
	for _, address := range c.target.hosts {
		if !c.mayDial(address) {
			return nil, engine.Invalid("connection_url: %s", inClear(address))
		}
	}
	return c, nil
}

// mayDial refuses to send passwords in clear over a network: those of credentials, that is. Root's own
// never crosses it (SCRAM).
func (c *config) mayDial(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return c.target.tls || c.AllowPlaintext || err == nil && engine.Loopback(host)
}

func inClear(address string) string {
	return "the way to " + address + " is not encrypted, and new passwords would cross it: write tls=true and set up TLS there, or set allow_plaintext if the network is trusted"
}

func badAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	return err != nil || host == "" || port == ""
}

// noAtlas says what to do instead.
const noAtlas = "this engine needs a MongoDB that takes createUser"

// atlas tells the addresses of MongoDB's own service.
func atlas(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return slices.ContainsFunc([]string{".mongodb.net", ".mongodb-dev.net", ".mongodbgov.net"}, func(domain string) bool { return strings.HasSuffix(host, domain) })
}

// endpoint is where the root secret is sent, and how well protected.
func (c *config) endpoint() string {
	if c.AllowPlaintext {
		return c.target.String() + " in clear"
	}
	return c.target.String()
}
