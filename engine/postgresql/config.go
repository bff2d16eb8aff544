package postgresql

import (
	"encoding/json"
	"errors"
	"fmt"
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
	defaultScramIterations  = 4096 // RFC 7677
	maxScramIterations      = 1_000_000
	defaultReconcile        = time.Hour
	minReconcile            = time.Minute
)

// config is the engine's part of a configuration, as docs/engines/postgresql.md
// describes it.
type config struct {
	Plugin              string            `json:"plugin"`
	ConnectionURL       string            `json:"connection_url"`
	RootCredentialsPath string            `json:"root_credentials_path"`
	TLSCAPath           string            `json:"tls_ca_path"`
	TLSCertPath         string            `json:"tls_cert_path"`
	ConnectTimeout      duration.Duration `json:"connect_timeout"`
	OperationTimeout    duration.Duration `json:"operation_timeout"`
	MaxOpenConnections  *int              `json:"max_open_connections"`
	UsernameTemplate    string            `json:"username_template"`
	Reconcile           string            `json:"reconcile"`
	ReconcileInterval   duration.Duration `json:"reconcile_interval"`
	ScramIterations     *int              `json:"scram_iterations"`
	SourceID            string            `json:"source_id"`
	Databases           []string          `json:"databases"`
	ReassignOwnedTo     string            `json:"reassign_owned_to"`

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
	if c.target, err = parseTarget(c.ConnectionURL, c.TLSCAPath != ""); err != nil {
		return nil, err
	}
	c.names, err = parseNames(c.UsernameTemplate)
	if err != nil {
		return nil, err
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
	if c.ScramIterations == nil {
		n := defaultScramIterations
		c.ScramIterations = &n
	}
	if c.Reconcile == "" {
		c.Reconcile = engine.ReconcileReport
	}
	if c.ReconcileInterval == 0 {
		c.ReconcileInterval = duration.Duration(defaultReconcile)
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
		{*c.ScramIterations < 1 || *c.ScramIterations > maxScramIterations, fmt.Sprintf("scram_iterations is not in 1 to %d", maxScramIterations)},
		{!slices.Contains([]string{engine.ReconcileReport, engine.ReconcileRemove, engine.ReconcileOff}, c.Reconcile),
			`reconcile is none of "report", "remove" and "off"`},
		{c.ReconcileInterval.Std() < minReconcile, "reconcile_interval is less than 1m"},
		{slices.Contains(c.Databases, ""), "databases holds an empty name"},
		{slices.Contains(c.Databases, c.target.database), "databases repeats the database of connection_url: name only the others"},
		{(c.TLSCAPath != "" || c.TLSCertPath != "") && c.target.sslmode == sslDisable, "tls_ca_path and tls_cert_path contradict sslmode=disable"},
	}
	for _, rule := range rules {
		if rule.bad {
			return invalid("%s", rule.text)
		}
	}
	return nil
}

// common is what the rest of the server must know of the configuration.
func (c *config) common() engine.Config {
	var secrets []string
	for _, path := range []string{c.TLSCAPath, c.TLSCertPath} {
		if path != "" {
			secrets = append(secrets, path)
		}
	}
	endpoint := c.target.String()
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
		ReconcileInterval:   c.ReconcileInterval.Std(),
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

// parseNames reads a username_template, nil where there is none.
func parseNames(text string) (*statement.NameTemplate, error) {
	if text == "" {
		return nil, nil
	}
	return statement.ParseNameTemplate(text, maxNameBytes)
}
