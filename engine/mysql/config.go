package mysql

import (
	"encoding/json"

	"github.com/scaivault/scaivault/engine"
)

// config is the engine's part of a configuration, as docs/engines/mysql.md
// describes it.
type config struct {
	engine.Settings
	engine.TLS
	ConnectionURL string `json:"connection_url"`
	ExpiryEvents  string `json:"expiry_events"`

	target target // the parsed ConnectionURL
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
	if c.target, err = parseTarget(c.ConnectionURL, c.TLS.Given()); err != nil {
		return nil, err
	}
	// Which of the two it is, and so how long names may be, is known when it is opened.
	if _, err := c.NameTemplate(mariaDB.maxName()); err != nil {
		return nil, err
	}
	return c, engine.Rules{
		{c.TLS.Given() && c.target.tls == tlsOff, "tls_ca_path and tls_cert_path contradict tls=false"},
		{len(c.ExpiryEvents) > maxIdentifier, "expiry_events is no name of a schema: it is longer than 64 bytes"},
	}.Check()
}

// maxIdentifier is the longest name of a schema, a table or an event.
const maxIdentifier = 64
