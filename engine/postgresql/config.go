package postgresql

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	defaultScramIterations = 4096 // RFC 7677
	maxScramIterations     = 1_000_000
)

// config is the engine's part of a configuration, as docs/engines/postgresql.md
// describes it.
type config struct {
	engine.Settings
	engine.TLS
	ConnectionURL   string   `json:"connection_url"`
	ScramIterations *int     `json:"scram_iterations"`
	Databases       []string `json:"databases"`
	ReassignOwnedTo string   `json:"reassign_owned_to"`

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
	if c.ScramIterations == nil {
		c.ScramIterations = new(defaultScramIterations)
	}
	var err error
	if c.target, err = parseTarget(c.ConnectionURL, c.CAPath != ""); err != nil {
		return nil, err
	}
	if c.names, err = c.NameTemplate(maxNameBytes); err != nil {
		return nil, err
	}
	return c, engine.Rules{
		{*c.ScramIterations < 1 || *c.ScramIterations > maxScramIterations, fmt.Sprintf("scram_iterations is not in 1 to %d", maxScramIterations)},
		{slices.Contains(c.Databases, ""), "databases holds an empty name"},
		{slices.Contains(c.Databases, c.target.database), "databases repeats the database of connection_url: name only the others"},
		{c.TLS.Given() && c.target.sslmode == sslDisable, "tls_ca_path and tls_cert_path contradict sslmode=disable"},
	}.Check()
}
