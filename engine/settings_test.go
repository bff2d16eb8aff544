package engine_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

// complete reads settings as an engine of the type "kind" does.
func complete(t *testing.T, fields map[string]any) (*engine.Settings, error) {
	t.Helper()
	document := map[string]any{"root_credentials_path": "infra/root"}
	maps.Copy(document, fields)
	raw, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	s := &engine.Settings{}
	if err := engine.Decode(raw, s); err != nil {
		return nil, err
	}
	if err := s.Complete("kind"); err != nil {
		return nil, err
	}
	_, err = s.NameTemplate(63)
	return s, err
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s, err := complete(t, map[string]any{"plugin": "kind"})
	if err != nil {
		t.Fatal(err)
	}
	c := s.Config("kind://source", "infra/ca", "")
	if c.OperationTimeout != 15*time.Second || c.ConnectTimeout != 5*time.Second || c.MaxOpenConnections != 4 || c.Reconcile != "report" || c.ReconcileInterval != time.Hour {
		t.Errorf("defaults: %+v", c)
	}
	if c.RootCredentialsPath != "infra/root" || len(c.SecretPaths) != 1 || c.SecretPaths[0] != "infra/ca" || c.Endpoint != "kind://source" {
		t.Errorf("secrets: %+v", c)
	}
	s, err = complete(t, map[string]any{
		"connect_timeout": "1s", "operation_timeout": "5m", "max_open_connections": 100,
		"reconcile": "off", "reconcile_interval": "1m", "source_id": "eu-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	c = s.Config("kind://source")
	if c.OperationTimeout != 5*time.Minute || c.ConnectTimeout != time.Second || c.MaxOpenConnections != 100 || c.Reconcile != "off" || c.ReconcileInterval != time.Minute {
		t.Errorf("given: %+v", c)
	}
	if c.Endpoint == "kind://source" {
		t.Error("who names the server may pass another off as it, yet the endpoint is the same")
	}
}

func TestSettingsRefuse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		field string
		value any
	}{
		"another plugin":       {"plugin", "other"},
		"no root":              {"root_credentials_path", ""},
		"no connection":        {"max_open_connections", 0},
		"one connection":       {"max_open_connections", 1},
		"too many":             {"max_open_connections", 101},
		"wrong type":           {"max_open_connections", "4"},
		"too long":             {"operation_timeout", "6m"},
		"connect beyond":       {"connect_timeout", "1m"},
		"reconcile":            {"reconcile", "always"},
		"reconcile too often":  {"reconcile_interval", "59s"},
		"names without chance": {"username_template", "v_{{role}}"},
		"unknown field":        {"max_open_conections", 4},
	} {
		_, err := complete(t, map[string]any{c.field: c.value})
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
