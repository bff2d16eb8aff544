package mongodb_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/mongodb"
)

const goodURL = "mongodb://{{username}}:{{password}}@m1.internal:27017,m2.internal:27018/?replicaSet=rs0&tls=true"

type fields = map[string]any

func configs() enginetest.Configs {
	url := func(rest string) fields {
		return fields{"connection_url": "mongodb://{{username}}:{{password}}@" + rest}
	}
	return enginetest.Configs{
		Type: mongodb.Type{},
		Good: fields{"plugin": "mongodb", "connection_url": goodURL, "root_credentials_path": "infra/root"},
		Endpoints: map[string]string{
			goodURL: "mongodb://m1.internal:27017,m2.internal:27018/?replicaSet=rs0&tls=true",
			"mongodb://{{username}}:{{password}}@localhost":                                  "mongodb://localhost:27017/?tls=false",
			"mongodb://{{username}}:{{password}}@127.0.0.1:7000,[::1]:7001/app":              "mongodb://127.0.0.1:7000,[::1]:7001/?authSource=app&tls=false",
			"mongodb://{{username}}:{{password}}@db/app?authSource=users&tls=true":           "mongodb://db:27017/?authSource=users&tls=true",
			"mongodb+srv://{{username}}:{{password}}@cluster.example.com/?replicaSet=rs0":    "mongodb+srv://cluster.example.com/?replicaSet=rs0&tls=true",
			"mongodb+srv://{{username}}:{{password}}@cluster.example.com/?authSource=second": "mongodb+srv://cluster.example.com/?authSource=second&tls=true",
		},
		Refused: enginetest.Refusals{
			"literal password":     {fields{"connection_url": "mongodb://root:hunter2@db/?tls=true"}, "{{username}}"},
			"second credentials":   {url("x:y@db/?tls=true"), "{{username}}"},
			"another scheme":       {fields{"connection_url": "http://{{username}}:{{password}}@db"}, "mongodb://"},
			"in clear":             {url("db.internal"), "allow_plaintext"},
			"SRV in clear":         {fields{"connection_url": "mongodb+srv://{{username}}:{{password}}@c.example.com/?tls=false"}, "allow_plaintext"},
			"SRV with a port":      {fields{"connection_url": "mongodb+srv://{{username}}:{{password}}@c.example.com:27017/"}, "without a port"},
			"SRV of two names":     {fields{"connection_url": "mongodb+srv://{{username}}:{{password}}@a.example.com,b.example.com/"}, "one name"},
			"SRV of a short name":  {fields{"connection_url": "mongodb+srv://{{username}}:{{password}}@example.com/"}, "three parts"},
			"no host":              {url("/?tls=true"), "host"},
			"a socket":             {url("%2Ftmp%2Fmongodb-27017.sock/?tls=true"), "host"},
			"no port":              {url("db:x/?tls=true"), "port"},
			"no database":          {url("db/a%2fb?tls=true"), "database"},
			"direct":               {url("db/?tls=true&directConnection=true"), "directConnection"},
			"unverified":           {url("db/?tls=true&tlsInsecure=true"), "tlsInsecure"},
			"a write concern":      {url("db/?tls=true&w=1"), `"w"`},
			"tls twice":            {url("db/?tls=true&tls=false"), "once"},
			"tls of a kind":        {url("db/?tls=maybe"), "tls"},
			"no set":               {url("db/?tls=true&replicaSet="), "replicaSet"},
			"Atlas":                {url("cluster0-shard-00-00.abcde.mongodb.net:27017/?tls=true"), "Atlas"},
			"Atlas by SRV":         {fields{"connection_url": "mongodb+srv://{{username}}:{{password}}@Cluster0.abcde.MongoDB.net/"}, "Atlas"},
			"CA without TLS":       {fields{"connection_url": "mongodb://{{username}}:{{password}}@localhost", "tls_ca_path": "ca"}, "tls_ca_path"},
			"a node without port":  {fields{"gone_nodes": []string{"10.0.0.1"}}, "gone_nodes"},
			"names without chance": {fields{"username_template": "v_{{role}}"}, "username_template"},
		},
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	configs().Run(t)
	c, err := mongodb.Type{}.ParseConfig(json.RawMessage(`{"connection_url": "mongodb+srv://{{username}}:{{password}}@c.example.com/", "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca", "tls_cert_path": "infra/client"}`))
	if err != nil || fmt.Sprint(c.SecretPaths) != "[infra/ca infra/client]" {
		t.Errorf("secrets: %+v, %v", c, err)
	}
	c, err = mongodb.Type{}.ParseConfig(json.RawMessage(`{"connection_url": "mongodb://{{username}}:{{password}}@db.internal", "root_credentials_path": "infra/root", "allow_plaintext": true}`))
	if err != nil || c.Endpoint != "mongodb://db.internal:27017/?tls=false in clear" {
		t.Errorf("in clear: %s, %v", c.Endpoint, err)
	}
}

func FuzzParseConfig(f *testing.F) { configs().Fuzz(f) }
