package redis_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine/redis"
	"github.com/scaivault/scaivault/internal/fault"
)

const goodURL = "rediss://{{username}}:{{password}}@cache.internal:6379"

func parseConfig(document map[string]any) (endpoint string, err error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return "", err
	}
	c, err := redis.Type{}.ParseConfig(raw)
	return c.Endpoint, err
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	c, err := redis.Type{}.ParseConfig(json.RawMessage(`{"plugin": "redis", "connection_url": "` + goodURL + `", "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca"}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.OperationTimeout != 15*time.Second || c.ConnectTimeout != 5*time.Second || c.MaxOpenConnections != 4 || c.Reconcile != "report" {
		t.Errorf("defaults: %+v", c)
	}
	if c.RootCredentialsPath != "infra/root" || fmt.Sprint(c.SecretPaths) != "[infra/ca]" {
		t.Errorf("secrets: %+v", c)
	}
}

func TestParseConfigTakesEveryKindOfAddress(t *testing.T) {
	t.Parallel()
	for url, endpoint := range map[string]string{
		goodURL: "rediss://cache.internal:6379/",
		"redis://{{username}}:{{password}}@localhost":                         "redis://localhost:6379/",
		"redis://{{username}}:{{password}}@127.0.0.1:7000,[::1]:7001/0":       "redis://127.0.0.1:7000,[::1]:7001/",
		"rediss+sentinel://{{username}}:{{password}}@s1,s2:26380/mymaster":    "rediss+sentinel://s1:26379,s2:26380/mymaster",
		"redis+sentinel://{{username}}:{{password}}@127.0.0.1:26379/mymaster": "redis+sentinel://127.0.0.1:26379/mymaster",
	} {
		got, err := parseConfig(map[string]any{"connection_url": url, "root_credentials_path": "r"})
		if err != nil || got != endpoint {
			t.Errorf("%s: %s, %v", url, got, err)
		}
	}
}

func TestParseConfigRefuses(t *testing.T) {
	t.Parallel()
	with := func(field string, value any) map[string]any {
		return map[string]any{"connection_url": goodURL, "root_credentials_path": "infra/root", field: value}
	}
	url := func(u string) map[string]any { return with("connection_url", u) }
	for name, c := range map[string]struct {
		document map[string]any
		says     string
	}{
		"unknown field":         {with("conection_url", "x"), "conection_url"},
		"another plugin":        {with("plugin", "postgresql"), "plugin"},
		"no root":               {with("root_credentials_path", ""), "root_credentials_path"},
		"literal password":      {url("rediss://root:hunter2@db:6379"), "{{username}}"},
		"second credentials":    {url("rediss://{{username}}:{{password}}@x:y@db"), "{{username}}"},
		"another scheme":        {url("http://{{username}}:{{password}}@db"), "rediss://"},
		"in clear":              {url("redis://{{username}}:{{password}}@cache.internal"), "allow_plaintext"},
		"no host":               {url("rediss://{{username}}:{{password}}@/"), "host"},
		"a socket":              {url("rediss://{{username}}:{{password}}@%2Fvar%2Frun"), "host"},
		"no port":               {url("rediss://{{username}}:{{password}}@db:x"), "port"},
		"a database":            {url("rediss://{{username}}:{{password}}@db/3"), "database"},
		"driver's parameters":   {url(goodURL + "?skip_verify=true"), "parameters"},
		"Sentinels without set": {url("rediss+sentinel://{{username}}:{{password}}@db"), "set"},
		"Sentinels' secret":     {with("sentinel_credentials_path", "x"), "sentinel"},
		"CA without TLS":        {map[string]any{"connection_url": "redis://{{username}}:{{password}}@localhost", "root_credentials_path": "r", "tls_ca_path": "ca"}, "tls_ca_path"},
		"one connection":        {with("max_open_connections", 1), "max_open_connections"},
		"too many":              {with("max_open_connections", 1000), "max_open_connections"},
		"too long":              {with("operation_timeout", "6m"), "operation_timeout"},
		"connect beyond":        {with("connect_timeout", "1m"), "connect_timeout"},
		"reconcile":             {with("reconcile", "always"), "reconcile"},
		"a node without port":   {with("gone_nodes", []string{"10.0.0.1"}), "gone_nodes"},
		"names without chance":  {with("username_template", "v_{{role}}"), "username_template"},
	} {
		_, err := parseConfig(c.document)
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats a password", name)
		}
	}
}

// FuzzParseConfig: no connection URL makes it panic, and what is accepted never
// shows credentials.
func FuzzParseConfig(f *testing.F) {
	f.Add(goodURL)
	f.Add("redis+sentinel://{{username}}:{{password}}@[::1]:1,b/x")
	f.Add("redis://{{username}}:{{password}}@localhost/0?")
	f.Fuzz(func(t *testing.T, url string) {
		endpoint, err := parseConfig(map[string]any{"connection_url": url, "root_credentials_path": "r", "allow_plaintext": true})
		if err != nil && fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("%q: %v", url, err)
		}
		if strings.Contains(endpoint, "{{") || strings.Contains(endpoint, "@") {
			t.Errorf("%q: endpoint %q", url, endpoint)
		}
	})
}
