package redis

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// config is the engine's part of a configuration, as docs/engines/redis.md
// describes it.
type config struct {
	engine.Settings
	engine.TLS
	ConnectionURL           string   `json:"connection_url"`
	SentinelCredentialsPath string   `json:"sentinel_credentials_path"`
	AllowPlaintext          bool     `json:"allow_plaintext"`
	GoneNodes               []string `json:"gone_nodes"`

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
		{c.TLS.Given() && !c.target.tls, "tls_ca_path and tls_cert_path need TLS: write rediss:// in connection_url"},
		{c.SentinelCredentialsPath != "" && c.target.sentinel == "", "sentinel_credentials_path needs a connection_url of Sentinels: redis+sentinel://"},
		{slices.ContainsFunc(c.GoneNodes, badAddress), "gone_nodes holds what is not host:port"},
	}).Check(); err != nil {
		return nil, err
	}
	for _, address := range c.target.hosts {
		if err := c.mayDial(address); err != nil {
			return nil, engine.Invalid("connection_url: %s", err)
		}
	}
	return c, nil
}

// mayDial refuses to send the root's password in clear over a network.
func (c *config) mayDial(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || c.target.tls || c.AllowPlaintext || engine.Loopback(host) {
		return nil //nolint:nilerr // the dialer says what is wrong with the address
	}
	return fmt.Errorf("the way to %s is not encrypted: write rediss:// and set up TLS there, or set allow_plaintext if the network is trusted", host)
}

func badAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	return err != nil || host == "" || port == ""
}

// endpoint is where the root secret is sent, and how well protected.
func (c *config) endpoint() string {
	if c.AllowPlaintext {
		return c.target.String() + " in clear"
	}
	return c.target.String()
}
