package redis_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/redis"
)

const goodURL = "rediss://{{username}}:{{password}}@cache.internal:6379"

type fields = map[string]any

func configs() enginetest.Configs {
	return enginetest.Configs{
		Type: redis.Type{},
		Good: fields{"plugin": "redis", "connection_url": goodURL, "root_credentials_path": "infra/root"},
		Endpoints: map[string]string{
			goodURL: "rediss://cache.internal:6379/",
			"redis://{{username}}:{{password}}@localhost":                         "redis://localhost:6379/",
			"redis://{{username}}:{{password}}@127.0.0.1:7000,[::1]:7001/0":       "redis://127.0.0.1:7000,[::1]:7001/",
			"rediss+sentinel://{{username}}:{{password}}@s1,s2:26380/mymaster":    "rediss+sentinel://s1:26379,s2:26380/mymaster",
			"redis+sentinel://{{username}}:{{password}}@127.0.0.1:26379/mymaster": "redis+sentinel://127.0.0.1:26379/mymaster",
		},
		Refused: enginetest.Refusals{
			"literal password":      {fields{"connection_url": "rediss://root:hunter2@db:6379"}, "{{username}}"},
			"second credentials":    {fields{"connection_url": "rediss://{{username}}:{{password}}@x:y@db"}, "{{username}}"},
			"another scheme":        {fields{"connection_url": "http://{{username}}:{{password}}@db"}, "rediss://"},
			"in clear":              {fields{"connection_url": "redis://{{username}}:{{password}}@cache.internal"}, "allow_plaintext"},
			"no host":               {fields{"connection_url": "rediss://{{username}}:{{password}}@/"}, "host"},
			"a socket":              {fields{"connection_url": "rediss://{{username}}:{{password}}@%2Fvar%2Frun"}, "host"},
			"no port":               {fields{"connection_url": "rediss://{{username}}:{{password}}@db:x"}, "port"},
			"a database":            {fields{"connection_url": "rediss://{{username}}:{{password}}@db/3"}, "database"},
			"driver's parameters":   {fields{"connection_url": goodURL + "?skip_verify=true"}, "parameters"},
			"Sentinels without set": {fields{"connection_url": "rediss+sentinel://{{username}}:{{password}}@db"}, "set"},
			"Sentinels' secret":     {fields{"sentinel_credentials_path": "x"}, "sentinel"},
			"CA without TLS":        {fields{"connection_url": "redis://{{username}}:{{password}}@localhost", "tls_ca_path": "ca"}, "tls_ca_path"},
			"a node without port":   {fields{"gone_nodes": []string{"10.0.0.1"}}, "gone_nodes"},
			"names without chance":  {fields{"username_template": "v_{{role}}"}, "username_template"},
		},
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	configs().Run(t)
	c, err := redis.Type{}.ParseConfig(json.RawMessage(`{"connection_url": "rediss+sentinel://{{username}}:{{password}}@db/set", "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca", "sentinel_credentials_path": "infra/sentinels"}`))
	if err != nil || fmt.Sprint(c.SecretPaths) != "[infra/ca infra/sentinels]" {
		t.Errorf("secrets: %+v, %v", c, err)
	}
	c, err = redis.Type{}.ParseConfig(json.RawMessage(`{"connection_url": "redis://{{username}}:{{password}}@cache.internal", "root_credentials_path": "infra/root", "allow_plaintext": true}`))
	if err != nil || c.Endpoint != "redis://cache.internal:6379/ in clear" {
		t.Errorf("in clear: %s, %v", c.Endpoint, err)
	}
}

func FuzzParseConfig(f *testing.F) {
	c := configs()
	c.Good["allow_plaintext"] = true
	c.Fuzz(f)
}
