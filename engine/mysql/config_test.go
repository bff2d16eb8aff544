package mysql_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/mysql"
)

const goodURL = "mysql://{{username}}:{{password}}@db.internal:3306/"

type fields = map[string]any

func configs() enginetest.Configs {
	return enginetest.Configs{
		Type: mysql.Type{},
		Good: fields{"plugin": "mysql", "connection_url": goodURL, "root_credentials_path": "infra/root"},
		Endpoints: map[string]string{
			goodURL: "mysql://db.internal:3306/?tls=true",
			"mysql://{{username}}:{{password}}@localhost":                     "mysql://localhost:3306/?tls=false",
			"mysql://{{username}}:{{password}}@127.0.0.1/app?tls=true":        "mysql://127.0.0.1:3306/app?tls=true",
			"mysql://{{username}}:{{password}}@127.0.0.1:7000,b:7001/":        "mysql://127.0.0.1:7000,b:7001/?tls=true",
			"mysql://{{username}}:{{password}}@db/a%20b?tls=verify-ca":        "mysql://db:3306/a%20b?tls=verify-ca",
			"mysql://{{username}}:{{password}}@db/?tls=false":                 "mysql://db:3306/?tls=false",
			"{{username}}:{{password}}@tcp(db:3307)/app":                      "mysql://db:3307/app?tls=true",
			"{{username}}:{{password}}@tcp([::1]:3307)/":                      "mysql://[::1]:3307/?tls=false",
			"{{username}}:{{password}}@tcp(10.0.0.1:3306,10.0.0.2)/?tls=true": "mysql://10.0.0.1:3306,10.0.0.2:3306/?tls=true",
		},
		Refused: enginetest.Refusals{
			"literal password":     {fields{"connection_url": "mysql://root:hunter2@db:3306/"}, "{{username}}"},
			"literal in a DSN":     {fields{"connection_url": "root:hunter2@tcp(db:3306)/"}, "{{username}}"},
			"second credentials":   {fields{"connection_url": "mysql://{{username}}:{{password}}@x:y@db/"}, "{{username}}"},
			"another scheme":       {fields{"connection_url": "http://{{username}}:{{password}}@db/"}, "{{username}}"},
			"a socket":             {fields{"connection_url": "{{username}}:{{password}}@unix(/tmp/mysql.sock)/"}, "tcp("},
			"no host":              {fields{"connection_url": "mysql://{{username}}:{{password}}@/"}, "host"},
			"no port":              {fields{"connection_url": "mysql://{{username}}:{{password}}@db:x/"}, "port"},
			"two databases":        {fields{"connection_url": goodURL + "a/b"}, "database"},
			"files":                {fields{"connection_url": goodURL + "?allowAllFiles=true"}, "allowAllFiles"},
			"password in clear":    {fields{"connection_url": goodURL + "?allowCleartextPasswords=true"}, "allowCleartextPasswords"},
			"a session's variable": {fields{"connection_url": goodURL + "?sql_mode=%27%27"}, "sql_mode"},
			"anybody's TLS":        {fields{"connection_url": goodURL + "?tls=skip-verify"}, "tls_ca_path"},
			"perhaps TLS":          {fields{"connection_url": goodURL + "?tls=preferred"}, "tls_ca_path"},
			"unknown TLS":          {fields{"connection_url": goodURL + "?tls=yes"}, "verify-ca"},
			"TLS twice":            {fields{"connection_url": goodURL + "?tls=true&tls=false"}, "twice"},
			"CA without TLS":       {fields{"connection_url": goodURL + "?tls=false", "tls_ca_path": "infra/ca"}, "tls_ca_path"},
			"names without chance": {fields{"username_template": "v_{{role}}"}, "username_template"},
			"no schema":            {fields{"expiry_events": fmt.Sprintf("%065d", 1)}, "expiry_events"},
		},
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	configs().Run(t)
	c, err := mysql.Type{}.ParseConfig(json.RawMessage(`{"connection_url": "mysql://{{username}}:{{password}}@localhost/", "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca", "tls_cert_path": "infra/cert"}`))
	if err != nil || fmt.Sprint(c.SecretPaths) != "[infra/ca infra/cert]" || c.Endpoint != "mysql://localhost:3306/?tls=true" {
		t.Errorf("certificates: %+v, %v", c, err)
	}
}

func FuzzParseConfig(f *testing.F) { configs().Fuzz(f) }
