package postgresql_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/fault"
)

const goodURL = "postgresql://{{username}}:{{password}}@db.internal:5432/support"

type fields = map[string]any

func configs() enginetest.Configs {
	return enginetest.Configs{
		Type: postgresql.Type{},
		Good: fields{"plugin": "postgresql", "connection_url": goodURL, "root_credentials_path": "infra/root"},
		Endpoints: map[string]string{
			goodURL: "postgresql://db.internal:5432/support?sslmode=default",
			"postgres://{{username}}:{{password}}@db/app":                                              "postgresql://db:5432/app?sslmode=default",
			"postgresql://{{username}}:{{password}}@a:5433,b,[::1]:5434/app?sslmode=require":           "postgresql://a:5433,b:5432,[::1]:5434/app?sslmode=require",
			"postgresql://{{username}}:{{password}}@[::1]/my%20app?sslmode=disable":                    "postgresql://[::1]:5432/my%20app?sslmode=disable",
			"postgresql://{{username}}:{{password}}@10.0.0.1:6432/app?target_session_attrs=read-write": "postgresql://10.0.0.1:6432/app?sslmode=default",
			goodURL + "?sslmode=require&target_session_attrs=primary":                                  "postgresql://db.internal:5432/support?sslmode=require",
		},
		Refused: enginetest.Refusals{
			"literal password":     {fields{"connection_url": "postgresql://root:hunter2@db:5432/app"}, "{{username}}"},
			"literal user":         {fields{"connection_url": "postgresql://root:{{password}}@db:5432/app"}, "{{username}}"},
			"second credentials":   {fields{"connection_url": "postgresql://{{username}}:{{password}}@x:y@db/app"}, "{{username}}"},
			"keyword form":         {fields{"connection_url": "host=db user=x"}, "postgresql://"},
			"another scheme":       {fields{"connection_url": "mysql://{{username}}:{{password}}@db/app"}, "postgresql://"},
			"no database":          {fields{"connection_url": "postgresql://{{username}}:{{password}}@db:5432"}, "database"},
			"no host":              {fields{"connection_url": "postgresql://{{username}}:{{password}}@/app"}, "host"},
			"a socket":             {fields{"connection_url": "postgresql://{{username}}:{{password}}@%2Fvar%2Frun/app"}, "host"},
			"no port":              {fields{"connection_url": "postgresql://{{username}}:{{password}}@db:x/app"}, "port"},
			"falls back":           {fields{"connection_url": goodURL + "?sslmode=prefer"}, "sslmode"},
			"odd sslmode":          {fields{"connection_url": goodURL + "?sslmode=on"}, "sslmode"},
			"a local file":         {fields{"connection_url": goodURL + "?sslrootcert=/etc/passwd"}, "sslrootcert"},
			"a key file":           {fields{"connection_url": goodURL + "?sslkey=/root/key"}, "sslkey"},
			"a password file":      {fields{"connection_url": goodURL + "?passfile=/root/.pgpass"}, "passfile"},
			"a service":            {fields{"connection_url": goodURL + "?service=x"}, "service"},
			"another host":         {fields{"connection_url": goodURL + "?host=evil"}, "host"},
			"options":              {fields{"connection_url": goodURL + "?options=-c%20role=postgres"}, "options"},
			"reads from a standby": {fields{"connection_url": goodURL + "?target_session_attrs=any"}, "target_session_attrs"},
			"sslmode twice":        {fields{"connection_url": goodURL + "?sslmode=require&sslmode=disable"}, "sslmode"},
			"CA without TLS":       {fields{"connection_url": goodURL + "?sslmode=disable", "tls_ca_path": "ca"}, "tls_ca_path"},
			"no rounds":            {fields{"scram_iterations": 0}, "scram_iterations"},
			"database twice":       {fields{"databases": []string{"support"}}, "databases"},
			"names without chance": {fields{"username_template": "v_{{role}}"}, "username_template"},
			"wrong type":           {fields{"databases": "support"}, "databases"},
		},
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	configs().Run(t)
	c, err := postgresql.Type{}.ParseConfig(json.RawMessage(`{"connection_url": "` + goodURL + `", "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca", "tls_cert_path": "infra/cert"}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.RootCredentialsPath != "infra/root" || fmt.Sprint(c.SecretPaths) != "[infra/ca infra/cert]" {
		t.Errorf("secrets: %+v", c)
	}
	if c.Endpoint != "postgresql://db.internal:5432/support?sslmode=verify-full" {
		t.Errorf("endpoint: %s", c.Endpoint)
	}
}

func FuzzParseConfig(f *testing.F) { configs().Fuzz(f) }

func TestParseRoleRefuses(t *testing.T) {
	t.Parallel()
	for document, says := range map[string]string{
		`{}`: "gives nothing",
		`{"privileges": ["USAGE ON SCHEMA public"], "creation_statements": ["CREATE ROLE \"{{name}}\""]}`: "contradict",
		`{"creation_statements": ["CREATE ROLE app"]}`:                                                    "{{name}}",
		`{"creation_statements": ["CREATE ROLE \"{{user}}\""]}`:                                           "{{user}}",
		`{"creation_statements": ["CREATE ROLE \"{{name}}\"; COMMIT"]}`:                                   "COMMIT",
		`{"creation_statements": ["CREATE ROLE \"{{name}}\"", "SET ROLE postgres"]}`:                      "ROLE",
		`{"creation_statements": ["CREATE ROLE \"{{name}}\""], "run_as_group": true}`:                     "run_as_group",
		`{"creation_statements": ["CREATE ROLE \"{{name}}\""], "revocation_statements": ["DROP {{x}}"]}`:  "{{x}}",
		`{"privileges": ["USAGE ON SCHEMA public"], "renew_statements": ["SELECT 1"]}`:                    "renew_statements",
		`{"privileges": ["USAGE ON SCHEMA public"], "password_form": "plain"}`:                            "password_form",
		`{"privileges": ["USAGE ON SCHEMA public"], "password_form": "md5"}`:                              "password_form",
		`{"member_of": ["pg_execute_server_program"]}`:                                                    "member_of",
		`{"privileges": ["EXECUTE ON ALL TABLES IN SCHEMA public"]}`:                                      "EXECUTE",
		`{"privileges": ["SELECT ON items"]}`:                                                             "schema",
		`{"privileges": ["SELECT ON ALL VIEWS IN SCHEMA public"]}`:                                        "ON ALL",
		`{"privileges": ["SELECT (id) ON public.items"]}`:                                                 "columns",
		`{"privileges": ["SELECT ON public.items TO bob"]}`:                                               "TO",
		`{"privileges": ["SELECT ON public.items WITH GRANT OPTION"]}`:                                    "GRANT OPTION",
		`{"privileges": ["SELECT ON public.items; DROP TABLE x"]}`:                                        "byte",
		`{"privileges": ["SELECT"]}`:                                                                      "comma or ON",
		`{"privileges": [""]}`:                                                                            "read like",
		`{"privileges": ["EXECUTE ON FUNCTION public.f"]}`:                                                "arguments",
		`{"privileges": ["SELECT ON \"public.items"]}`:                                                    "closed",
		`{"privileges": ["USAGE ON SCHEMA public"], "privilege": 1}`:                                      "privilege",
	} {
		_, err := postgresql.Type{}.ParseRole(json.RawMessage(document))
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", document, err)
		}
	}
}

// FuzzParseRole: whatever is accepted has a normal form that is accepted, too,
// and means the same.
func FuzzParseRole(f *testing.F) {
	for _, seed := range []string{
		"SELECT, INSERT ON ALL TABLES IN SCHEMA public", `usage on schema "Weird ""name"""`, "ALL PRIVILEGES ON TABLE a.b, c.d",
		"EXECUTE ON FUNCTION a.f(integer, character varying[])", "CONNECT, TEMP ON DATABASE x", "USAGE ON SEQUENCE a.b", `EXECUTE ON ROUTINE a."b"("c"."d", numeric(1,2))`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		grants, err := postgresql.NormalGrants([]string{entry})
		if err != nil {
			if fault.CodeOf(err) != fault.InvalidConfig {
				t.Errorf("%q: %v", entry, err)
			}
			return
		}
		again, err := postgresql.NormalGrants(grants)
		if err != nil || strings.Join(again, "\n") != strings.Join(grants, "\n") {
			t.Errorf("%q is %q, which is read as %q: %v", entry, grants, again, err)
		}
	})
}
