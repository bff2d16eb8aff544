package postgresql_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/fault"
)

const goodURL = "postgresql://{{username}}:{{password}}@db.internal:5432/support"

func TestParseConfig(t *testing.T) {
	t.Parallel()
	c, err := postgresql.Type{}.ParseConfig(json.RawMessage(`{"plugin": "postgresql", "connection_url": "` + goodURL + `", "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca"}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.OperationTimeout != 15*time.Second || c.ConnectTimeout != 5*time.Second || c.MaxOpenConnections != 4 || c.Reconcile != "report" || c.ReconcileInterval != time.Hour {
		t.Errorf("defaults: %+v", c)
	}
	if c.RootCredentialsPath != "infra/root" || fmt.Sprint(c.SecretPaths) != "[infra/ca]" {
		t.Errorf("secrets: %+v", c)
	}
	if c.Endpoint != "postgresql://db.internal:5432/support?sslmode=verify-full" {
		t.Errorf("endpoint: %s", c.Endpoint)
	}
	named, err := postgresql.Type{}.ParseConfig(json.RawMessage(`{"connection_url": "` + goodURL + `", "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca", "source_id": "eu-1"}`))
	if err != nil || named.Endpoint == c.Endpoint {
		t.Errorf("who names the server may pass another off as it, yet the endpoint is the same: %s, %v", named.Endpoint, err)
	}
}

func TestParseConfigTakesEveryKindOfAddress(t *testing.T) {
	t.Parallel()
	for url, endpoint := range map[string]string{
		"postgres://{{username}}:{{password}}@db/app":                                              "postgresql://db:5432/app?sslmode=default",
		"postgresql://{{username}}:{{password}}@a:5433,b,[::1]:5434/app?sslmode=require":           "postgresql://a:5433,b:5432,[::1]:5434/app?sslmode=require",
		"postgresql://{{username}}:{{password}}@[::1]/my%20app?sslmode=disable":                    "postgresql://[::1]:5432/my%20app?sslmode=disable",
		"postgresql://{{username}}:{{password}}@10.0.0.1:6432/app?target_session_attrs=read-write": "postgresql://10.0.0.1:6432/app?sslmode=default",
	} {
		document, _ := json.Marshal(map[string]any{"connection_url": url, "root_credentials_path": "r"}) //nolint:errchkjson // texts
		c, err := postgresql.Type{}.ParseConfig(document)
		if err != nil || c.Endpoint != endpoint {
			t.Errorf("%s: %s, %v", url, c.Endpoint, err)
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
		"unknown field":        {with("conection_url", "x"), "conection_url"},
		"another plugin":       {with("plugin", "mysql"), "plugin"},
		"no root":              {with("root_credentials_path", ""), "root_credentials_path"},
		"literal password":     {url("postgresql://root:hunter2@db:5432/app"), "{{username}}"},
		"literal user":         {url("postgresql://root:{{password}}@db:5432/app"), "{{username}}"},
		"second credentials":   {url("postgresql://{{username}}:{{password}}@x:y@db/app"), "{{username}}"},
		"keyword form":         {url("host=db user=x"), "postgresql://"},
		"another scheme":       {url("mysql://{{username}}:{{password}}@db/app"), "postgresql://"},
		"no database":          {url("postgresql://{{username}}:{{password}}@db:5432"), "database"},
		"no host":              {url("postgresql://{{username}}:{{password}}@/app"), "host"},
		"a socket":             {url("postgresql://{{username}}:{{password}}@%2Fvar%2Frun/app"), "host"},
		"no port":              {url("postgresql://{{username}}:{{password}}@db:x/app"), "port"},
		"falls back":           {url(goodURL + "?sslmode=prefer"), "sslmode"},
		"odd sslmode":          {url(goodURL + "?sslmode=on"), "sslmode"},
		"a local file":         {url(goodURL + "?sslrootcert=/etc/passwd"), "sslrootcert"},
		"a key file":           {url(goodURL + "?sslkey=/root/key"), "sslkey"},
		"a password file":      {url(goodURL + "?passfile=/root/.pgpass"), "passfile"},
		"a service":            {url(goodURL + "?service=x"), "service"},
		"another host":         {url(goodURL + "?host=evil"), "host"},
		"options":              {url(goodURL + "?options=-c%20role=postgres"), "options"},
		"reads from a standby": {url(goodURL + "?target_session_attrs=any"), "target_session_attrs"},
		"sslmode twice":        {url(goodURL + "?sslmode=require&sslmode=disable"), "sslmode"},
		"CA without TLS":       {map[string]any{"connection_url": goodURL + "?sslmode=disable", "root_credentials_path": "r", "tls_ca_path": "ca"}, "tls_ca_path"},
		"one connection":       {with("max_open_connections", 1), "max_open_connections"},
		"too many":             {with("max_open_connections", 1000), "max_open_connections"},
		"too long":             {with("operation_timeout", "6m"), "operation_timeout"},
		"connect beyond":       {with("connect_timeout", "1m"), "connect_timeout"},
		"no rounds":            {with("scram_iterations", 0), "scram_iterations"},
		"reconcile":            {with("reconcile", "always"), "reconcile"},
		"reconcile too often":  {with("reconcile_interval", "59s"), "reconcile_interval"},
		"database twice":       {with("databases", []string{"support"}), "databases"},
		"names without chance": {with("username_template", "v_{{role}}"), "username_template"},
		"wrong type":           {with("databases", "support"), "databases"},
	} {
		document, _ := json.Marshal(c.document) //nolint:errchkjson // texts and numbers
		_, err := postgresql.Type{}.ParseConfig(document)
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats a password", name)
		}
	}
}

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

// FuzzParseConfig: no connection URL makes it panic, and what is accepted never
// shows credentials.
func FuzzParseConfig(f *testing.F) {
	f.Add(goodURL)
	f.Add(goodURL + "?sslmode=require&target_session_attrs=primary")
	f.Add("postgresql://{{username}}:{{password}}@[::1]:1,b/x%20y?")
	f.Fuzz(func(t *testing.T, url string) {
		document, err := json.Marshal(map[string]any{"connection_url": url, "root_credentials_path": "r"})
		if err != nil {
			return // no text of JSON
		}
		c, err := postgresql.Type{}.ParseConfig(document)
		if err != nil {
			if fault.CodeOf(err) != fault.InvalidConfig {
				t.Errorf("%q: %v", url, err)
			}
			return
		}
		if strings.Contains(c.Endpoint, "{{") || strings.Contains(c.Endpoint, "@") {
			t.Errorf("%q: endpoint %q", url, c.Endpoint)
		}
	})
}
