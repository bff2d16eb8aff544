package redis

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/strictjson"
)

// Defaults and limits of a configuration.
const (
	defaultConnectTimeout   = 5 * time.Second
	defaultOperationTimeout = 15 * time.Second
	maxOperationTimeout     = 5 * time.Minute
	defaultConnections      = 4
	maxConnections          = 100
	reconcileReport         = "report"
	reconcileRemove         = "remove"
)

// config is the engine's part of a configuration, as docs/engines/redis.md
// describes it.
type config struct {
	Plugin                  string            `json:"plugin"`
	ConnectionURL           string            `json:"connection_url"`
	RootCredentialsPath     string            `json:"root_credentials_path"`
	SentinelCredentialsPath string            `json:"sentinel_credentials_path"`
	TLSCAPath               string            `json:"tls_ca_path"`
	TLSCertPath             string            `json:"tls_cert_path"`
	AllowPlaintext          bool              `json:"allow_plaintext"`
	ConnectTimeout          duration.Duration `json:"connect_timeout"`
	OperationTimeout        duration.Duration `json:"operation_timeout"`
	MaxOpenConnections      *int              `json:"max_open_connections"`
	UsernameTemplate        string            `json:"username_template"`
	Reconcile               string            `json:"reconcile"`
	SourceID                string            `json:"source_id"`
	GoneNodes               []string          `json:"gone_nodes"`

	target target                  // the parsed ConnectionURL
	names  *statement.NameTemplate // the parsed UsernameTemplate; nil for the usual names
}

// parseConfig decodes and checks; after it every optional field has its value.
func parseConfig(raw json.RawMessage) (*config, error) {
	c := &config{}
	if err := decode(raw, c); err != nil {
		return nil, err
	}
	c.setDefaults()
	var err error
	if c.target, err = parseTarget(c.ConnectionURL); err != nil {
		return nil, err
	}
	if c.UsernameTemplate != "" {
		if c.names, err = statement.ParseNameTemplate(c.UsernameTemplate, maxNameBytes); err != nil {
			return nil, err
		}
	}
	return c, c.check()
}

func (c *config) setDefaults() {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = duration.Duration(defaultConnectTimeout)
	}
	if c.OperationTimeout == 0 {
		c.OperationTimeout = duration.Duration(defaultOperationTimeout)
	}
	if c.MaxOpenConnections == nil {
		n := defaultConnections
		c.MaxOpenConnections = &n
	}
	if c.Reconcile == "" {
		c.Reconcile = reconcileReport
	}
}

func (c *config) check() error {
	rules := []struct {
		bad  bool
		text string
	}{
		{c.Plugin != "" && c.Plugin != typeName, fmt.Sprintf("plugin is not %s", typeName)},
		{c.RootCredentialsPath == "", "root_credentials_path is missing: name the secret that holds username and password of the root"},
		{c.OperationTimeout.Std() > maxOperationTimeout, "operation_timeout is longer than 5m"},
		{c.ConnectTimeout.Std() > c.OperationTimeout.Std(), "connect_timeout is longer than operation_timeout"},
		{*c.MaxOpenConnections < 2, "max_open_connections is less than 2: one connection is kept for revocation"},
		{*c.MaxOpenConnections > maxConnections, fmt.Sprintf("max_open_connections is more than %d", maxConnections)},
		{c.Reconcile != reconcileReport && c.Reconcile != reconcileRemove, `reconcile is neither "report" nor "remove"`},
		{(c.TLSCAPath != "" || c.TLSCertPath != "") && !c.target.tls, "tls_ca_path and tls_cert_path need TLS: write rediss:// in connection_url"},
		{c.SentinelCredentialsPath != "" && c.target.sentinel == "", "sentinel_credentials_path needs a connection_url of Sentinels: redis+sentinel://"},
		{slices.ContainsFunc(c.GoneNodes, badAddress), "gone_nodes holds what is not host:port"},
	}
	for _, rule := range rules {
		if rule.bad {
			return invalid("%s", rule.text)
		}
	}
	for _, address := range c.target.hosts {
		if err := c.mayDial(address); err != nil {
			return invalid("connection_url: %s", err)
		}
	}
	return nil
}

// mayDial refuses to send the root's password in clear over a network.
func (c *config) mayDial(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || c.target.tls || c.AllowPlaintext || loopback(host) {
		return nil //nolint:nilerr // the dialer says what is wrong with the address
	}
	return fmt.Errorf("the way to %s is not encrypted: write rediss:// and set up TLS there, or set allow_plaintext if the network is trusted", host)
}

func badAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	return err != nil || host == "" || port == ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// common is what the rest of the server must know of the configuration.
func (c *config) common() engine.Config {
	var secrets []string
	for _, path := range []string{c.TLSCAPath, c.TLSCertPath, c.SentinelCredentialsPath} {
		if path != "" {
			secrets = append(secrets, path)
		}
	}
	endpoint := c.target.String()
	if c.AllowPlaintext {
		endpoint += " in clear"
	}
	if c.SourceID != "" { // whoever says which server this is could pass another one off as it
		endpoint += " as " + c.SourceID
	}
	return engine.Config{
		RootCredentialsPath: c.RootCredentialsPath,
		SecretPaths:         secrets,
		Endpoint:            endpoint,
		OperationTimeout:    c.OperationTimeout.Std(),
		ConnectTimeout:      c.ConnectTimeout.Std(),
		MaxOpenConnections:  *c.MaxOpenConnections,
		Reconcile:           c.Reconcile,
	}
}

// decode reads an engine's document strictly. Durations keep their own code.
func decode(raw json.RawMessage, into any) error {
	err := strictjson.Decode(raw, into)
	var f *fault.Error
	if errors.As(err, &f) && f.Code == fault.InvalidRequest {
		return invalid("%s", f.Message)
	}
	return err
}

func invalid(format string, args ...any) error {
	return fault.New(fault.InvalidConfig, format, args...)
}
