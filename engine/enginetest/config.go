package enginetest

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

// Configs are configurations that a type of engine takes and refuses.
type Configs struct {
	Type engine.Type
	// Good is one that is taken.
	Good map[string]any
	// Endpoints tells of connection URLs where the root secret is sent.
	Endpoints map[string]string
	// Refused change Good to what is refused, each for its own reason.
	Refused Refusals
}

// Refusals are documents that cannot be, and what the invalid_config says of each.
type Refusals map[string]struct {
	Fields map[string]any
	Says   string
}

// Run tries them all. A password that stands where none belongs is "hunter2": no error repeats it.
func (c Configs) Run(t *testing.T) {
	for url, endpoint := range c.Endpoints {
		taken, err := c.parse(map[string]any{"connection_url": url})
		if err != nil || taken.Endpoint != endpoint {
			t.Errorf("%s: %s, %v", url, taken.Endpoint, err)
		}
	}
	refused := Refusals{
		"unknown field":  {map[string]any{"conection_url": "x"}, "conection_url"},
		"another plugin": {map[string]any{"plugin": "another"}, "plugin"},
		"no root":        {map[string]any{"root_credentials_path": ""}, "root_credentials_path"},
	}
	maps.Copy(refused, c.Refused)
	for name, r := range refused {
		_, err := c.parse(r.Fields)
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), r.Says) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats a password", name)
		}
	}
}

// Fuzz tries connection URLs: none makes the parser panic, and no endpoint shows credentials.
func (c Configs) Fuzz(f *testing.F) {
	for url := range c.Endpoints {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		taken, err := c.parse(map[string]any{"connection_url": url})
		if err != nil && fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("%q: %v", url, err)
		}
		if strings.Contains(taken.Endpoint, "{{") || strings.Contains(taken.Endpoint, "@") {
			t.Errorf("%q: endpoint %q", url, taken.Endpoint)
		}
	})
}

// parse reads the good configuration with some of its fields changed.
func (c Configs) parse(changed map[string]any) (engine.Config, error) {
	document := maps.Clone(c.Good)
	maps.Copy(document, changed)
	raw, err := json.Marshal(document)
	if err != nil {
		return engine.Config{}, err
	}
	return c.Type.ParseConfig(raw)
}
