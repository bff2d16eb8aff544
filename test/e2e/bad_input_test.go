package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// canary stands in every bad document where a secret could: no refusal may
// repeat it.
const canary = "canary-Tq7Ws2Pz9"

// bad is a request that must be refused.
type bad struct {
	request string // "METHOD /path"
	body    string
	status  int
	code    client.Code
}

// goodBodies are documents of the right shape for every operation that takes
// one; they are spoilt in every way.
func goodBodies() map[string]string {
	return map[string]string{
		"POST /v1/dynamic/engines":                  `{"name": "x", "type": "database", "config": {"plugin": "postgresql", "connection_url": "` + canary + `"}}`,
		"PUT /v1/dynamic/engines/db":                `{"type": "database", "config": {"plugin": "postgresql", "connection_url": "` + canary + `"}}`,
		"PATCH /v1/dynamic/engines/db":              `{"metadata": {"a": "` + canary + `"}}`,
		"POST /v1/dynamic/engines/db/abandon":       `{"reason": "` + canary + `", "confirm": "no"}`,
		"POST /v1/dynamic/engines/db/reconcile":     `{"dry_run": true}`,
		"POST /v1/dynamic/engines/db/roles":         `{"name": "x", "metadata": {"a": "` + canary + `"}}`,
		"PUT /v1/dynamic/engines/db/roles/reader":   `{"metadata": {"a": "` + canary + `"}}`,
		"PATCH /v1/dynamic/engines/db/roles/reader": `{"metadata": {"a": "` + canary + `"}}`,
		"POST /v1/dynamic/engines/db/creds/reader":  `{"ttl": "1h"}`,
		"POST /v1/dynamic/leases/LEASE/renew":       `{"increment": "1h"}`,
		"POST /v1/dynamic/leases/revoke-prefix":     `{"prefix": "db"}`,
		"POST /v1/dynamic/leases/revoke":            `{"engine": "db"}`,
		"PUT /v1/secrets/apps/x":                    `{"data": {"password": "` + canary + `"}}`,
		"PATCH /v1/secrets/apps/there":              `{"metadata": {"owner": "` + canary + `"}}`,
		"POST /v1/secrets/batch":                    `{"paths": ["apps/there"]}`,
		"POST /v1/policies":                         `{"name": "x", "rules": [{"path_pattern": "a/*", "permissions": ["read"]}]}`,
		"PUT /v1/policies/POLICY":                   `{"name": "x", "rules": [{"path_pattern": "a/*", "permissions": ["read"]}]}`,
		"PATCH /v1/policies/POLICY":                 `{"description": "x"}`,
		"POST /v1/policies/POLICY/bindings":         `{"identity_type": "user", "identity_id": "user:alice"}`,
		"POST /v1/policies/test":                    `{"identity_id": "user:alice", "path": "a/b", "permission": "read"}`,
		"POST /v1/auth/tokens":                      `{"name": "x", "scopes": ["dynamic:read"]}`,
		"POST /v1/auth/service-accounts":            `{"name": "x", "scopes": ["dynamic:read"]}`,
		"POST /v1/auth/introspect":                  `{"token": "` + canary + `"}`,
	}
}

// spoilt are the ways to spoil any document.
func spoilt(request, good string) []bad {
	open := strings.TrimSuffix(good, "}")
	first, _, _ := strings.Cut(strings.TrimPrefix(good, `{"`), `"`)
	return []bad{
		{request, open + `, "nobody_knows": "` + canary + `"}`, 400, ""}, // invalid_request, or invalid_config where the rest is the engine's own
		{request, open + `, "` + first + `": 1}`, 400, ""},
		{request, open + `, "` + strings.ToUpper(first) + `": 1}`, 400, ""},
		{request, good + ` {"more": "` + canary + `"}`, 400, client.InvalidRequest},
		{request, good + `x`, 400, client.InvalidRequest},
		{request, `[` + good + `]`, 400, ""},
		{request, `null`, 400, ""},
		{request, `"` + canary + `"`, 400, ""},
		{request, open, 400, client.InvalidRequest},
		{request, strings.Replace(good, ":", ": \xff", 1), 400, client.InvalidRequest},
		{request, `{"` + first + `": "\ud800"}`, 400, client.InvalidRequest},
		{request, `{"` + first + `": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, 400, client.InvalidRequest},
		{request, `{"` + first + `": "` + strings.Repeat("a", 1<<20) + `"}`, 400, client.InvalidRequest},
	}
}

// wrong are well-formed requests that mean nothing good.
func wrong(s *source) []bad {
	engine := func(changes string) string {
		return fmt.Sprintf(`{"name": "x", "type": "database", "config": {"plugin": "postgresql", "root_credentials_path": "infra/db/root", "connection_url": "postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable"}%s}`, s.addr, s.db, changes)
	}
	with := func(from, to string) string { return strings.Replace(engine(""), from, to, 1) }
	role := func(fields string) string { return `{"name": "x", ` + fields + `}` }
	create := func(sql ...string) string {
		list, _ := json.Marshal(sql)
		return role(`"creation_statements": ` + string(list))
	}
	const engines, roles, creds = "POST /v1/dynamic/engines", "POST /v1/dynamic/engines/db/roles", "POST /v1/dynamic/engines/db/creds/reader"
	const mk = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`
	return []bad{
		{engines, with(`"x"`, `"Not A Name"`), 400, client.InvalidConfig},
		{engines, with(`"x"`, `""`), 400, client.InvalidConfig},
		{engines, with(`"database"`, `"`+canary+`"`), 400, client.InvalidConfig},
		{engines, with(`"postgresql"`, `"oracle"`), 400, client.InvalidConfig},
		{engines, with(`{{password}}`, canary), 400, client.InvalidConfig},
		{engines, with(`postgresql://`, `http://`), 400, client.InvalidConfig},
		{engines, with(`sslmode=disable`, `sslmode=prefer`), 400, client.InvalidConfig},
		{engines, with(`sslmode=disable`, `passfile=/etc/passwd`), 400, client.InvalidConfig},
		{engines, with(s.addr, "169.254.169.254:5432"), 400, client.InvalidConfig},
		{engines, with(s.db, "no_such_database"), 400, client.InvalidConfig},
		{engines, with("infra/db/root", "infra/nothing/here"), 400, client.InvalidConfig},
		{engines, with("infra/db/root", "apps/there"), 400, client.InvalidConfig}, // no grant for engines
		{engines, with(`"plugin"`, `"operation_timeout": "1h", "plugin"`), 400, client.InvalidConfig},
		{engines, with(`"plugin"`, `"max_open_connections": 1, "plugin"`), 400, client.InvalidConfig},
		{engines, with(`"plugin"`, `"username_template": "fixed", "plugin"`), 400, client.InvalidConfig},
		{engines, engine(`, "default_ttl": "0s"`), 400, client.InvalidDuration},
		{engines, engine(`, "default_ttl": "-1h"`), 400, client.InvalidDuration},
		{engines, engine(`, "default_ttl": "1.5h"`), 400, client.InvalidDuration},
		{engines, engine(`, "max_ttl": "11000d"`), 400, client.InvalidDuration},
		{engines, engine(`, "max_ttl": 99999999999999999999`), 400, ""},
		{engines, engine(`, "default_ttl": "48h", "max_ttl": "24h"`), 400, ""},
		{engines, with(`"x"`, `"db"`), 409, "engine_exists"},
		{"PUT /v1/dynamic/engines/Bad.Name", engine(""), 400, ""},
		{"PUT /v1/dynamic/engines/other", engine(""), 400, client.InvalidConfig}, // the body names another
		{"PATCH /v1/dynamic/engines/none", `{"max_ttl": "1h"}`, 404, client.EngineNotFound},
		{"PATCH /v1/dynamic/engines/db", `{"config": {"connection_url": "postgresql://root:` + canary + `@host/db"}}`, 400, client.InvalidConfig},
		{"PATCH /v1/dynamic/engines/db", `{"config": {"nonsense": "` + canary + `"}}`, 400, client.InvalidConfig},
		{"DELETE /v1/dynamic/engines/db", "", 409, client.EngineInUse},
		{"DELETE /v1/dynamic/engines/none", "", 404, client.EngineNotFound},
		{"DELETE /v1/dynamic/engines/db?force=maybe", "", 400, client.InvalidRequest},
		{"GET /v1/dynamic/engines/none/health", "", 404, client.EngineNotFound},
		{"POST /v1/dynamic/engines/db/abandon", `{"reason": "gone", "confirm": "other"}`, 400, ""},
		{"POST /v1/dynamic/engines/none/rotate-root", "", 404, client.EngineNotFound},

		{roles, create(`CREATE ROLE fixed LOGIN`), 400, client.InvalidConfig},
		{roles, create(mk, `GRANT "{{unknown}}" TO "{{name}}"`), 400, client.InvalidConfig},
		{roles, create(`CREATE ROLE "{{name}" LOGIN`), 400, client.InvalidConfig},
		{roles, create(mk, `COMMIT`), 400, client.InvalidConfig},
		{roles, create(mk + `; ROLLBACK; SELECT 1`), 400, client.InvalidConfig},
		{roles, create(mk, `SET ROLE postgres`), 400, client.InvalidConfig},
		{roles, create(mk, `SET SESSION AUTHORIZATION postgres`), 400, client.InvalidConfig},
		{roles, create(mk, `this is no SQL `+canary), 400, client.InvalidConfig},
		{roles, create(mk, `GRANT SELECT ON no_such_table TO "{{name}}"`), 400, client.InvalidConfig},
		{roles, create(mk, `GRANT pg_execute_server_program TO "{{name}}"`), 400, client.InvalidConfig},
		{roles, create(), 400, client.InvalidConfig},
		{roles, role(`"privileges": []`), 400, client.InvalidConfig},
		{roles, role(`"privileges": ["EVERYTHING ON ALL TABLES IN SCHEMA public"]`), 400, client.InvalidConfig},
		{roles, role(`"privileges": ["SELECT ON no_such_table"]`), 400, client.InvalidConfig},
		{roles, role(`"privileges": ["SELECT ON items; DROP TABLE items"]`), 400, client.InvalidConfig},
		{roles, role(`"privileges": ["SELECT ON items WITH GRANT OPTION"]`), 400, client.InvalidConfig},
		{roles, role(`"member_of": ["pg_read_server_files"]`), 400, client.InvalidConfig},
		{roles, role(`"member_of": ["no_such_role"]`), 400, client.InvalidConfig},
		{roles, role(`"privileges": ["SELECT ON items"], "creation_statements": ["` + strings.ReplaceAll(mk, `"`, `\"`) + `"]`), 400, client.InvalidConfig},
		{roles, role(`"privileges": ["SELECT ON items"], "max_ttl": "48h"`), 400, ""},
		{roles, role(`"privileges": ["SELECT ON items"], "default_ttl": "none"`), 400, client.InvalidDuration},
		{roles, `{"name": "No", "privileges": ["SELECT ON items"]}`, 400, "invalid_role"},
		{roles, `{"name": "reader", "privileges": ["SELECT ON items"]}`, 409, "role_exists"},
		{"POST /v1/dynamic/engines/none/roles", role(`"privileges": ["SELECT ON items"]`), 404, client.EngineNotFound},
		{"DELETE /v1/dynamic/engines/db/roles/reader", "", 409, client.RoleInUse},
		{"GET /v1/dynamic/engines/db/roles/none", "", 404, client.RoleNotFound},

		{creds, `{"ttl": "25h"}`, 400, client.InvalidDuration},
		{creds, `{"ttl": 0}`, 400, client.InvalidDuration},
		{creds, `{"ttl": "1h1h"}`, 400, client.InvalidDuration},
		{creds, `{"ttl": true}`, 400, ""},
		{creds, `{"metadata": {"a": 1}}`, 400, client.InvalidRequest},
		{creds + "?ttl=1h", "", 400, client.InvalidRequest},
		{"POST /v1/dynamic/engines/db/creds/none", "", 404, client.RoleNotFound},
		{"POST /v1/dynamic/engines/none/creds/reader", "", 404, client.EngineNotFound},
		{"POST /v1/dynamic/engines//creds/reader", "", 400, client.InvalidPath},
		{"POST /v1/dynamic/engines/db%2fx/creds/reader", "", 400, client.InvalidPath},
		{"POST /v1/dynamic/engines/x/../db/creds/reader", "", 400, client.InvalidPath},
		{"GET /v1/dynamic/engines/db/creds/reader", "", 405, "method_not_allowed"},

		{"GET /v1/dynamic/leases?status=undead", "", 400, client.InvalidRequest},
		{"GET /v1/dynamic/leases?limit=0", "", 400, ""},
		{"GET /v1/dynamic/leases?limit=1001", "", 400, ""},
		{"GET /v1/dynamic/leases?cursor=" + canary, "", 400, "invalid_cursor"},
		{"GET /v1/dynamic/leases?expires_before=tomorrow", "", 400, ""},
		{"GET /v1/dynamic/leases?nobody_knows=1", "", 400, client.InvalidRequest},
		{"GET /v1/dynamic/leases/lease_none", "", 404, client.LeaseNotFound},
		{"GET /v1/dynamic/leases/lease_00000000000000000000000000", "", 404, client.LeaseNotFound},
		{"POST /v1/dynamic/leases/lease_00000000000000000000000000/renew", `{}`, 404, client.LeaseNotFound},
		{"DELETE /v1/dynamic/leases/lease_00000000000000000000000000", "", 404, client.LeaseNotFound},
		{"DELETE /v1/dynamic/leases/LEASE?wait=11m", "", 400, ""},
		{"POST /v1/dynamic/leases/LEASE/renew", `{"increment": "1h", "ttl": "1h"}`, 400, client.InvalidRequest},
		{"POST /v1/dynamic/leases/LEASE/renew", `{"ttl": "-1s"}`, 400, client.InvalidDuration},
		{"POST /v1/dynamic/leases/revoke-prefix", `{"prefix": "*"}`, 400, client.InvalidRequest},
		{"POST /v1/dynamic/leases/revoke-prefix", `{}`, 400, client.InvalidRequest},
		{"POST /v1/dynamic/leases/revoke-prefix", `{"prefix": "none"}`, 404, client.EngineNotFound},
		{"POST /v1/dynamic/leases/revoke", `{}`, 400, client.InvalidRequest},
		{"POST /v1/dynamic/leases/revoke", `{"role": "reader"}`, 400, client.InvalidRequest},
		{"POST /v1/dynamic/leases/revoke", `{"issued_before": "yesterday"}`, 400, ""},

		{"PUT /v1/secrets/Apps/x", `{"data": {"a": "` + canary + `"}}`, 400, client.InvalidPath},
		{"PUT /v1/secrets/apps//x", `{"data": {"a": "` + canary + `"}}`, 400, client.InvalidPath},
		{"PUT /v1/secrets/apps/x/", `{"data": {"a": "` + canary + `"}}`, 400, client.InvalidPath},
		{"PUT /v1/secrets/" + strings.Repeat("a/", 10) + "a", `{"data": {"a": "b"}}`, 400, client.InvalidPath},
		{"PUT /v1/secrets/dynamic/db", `{"data": {"a": "b"}}`, 400, client.InvalidPath},
		{"PUT /v1/secrets/sys/x", `{"data": {"a": "b"}}`, 400, client.InvalidPath},
		{"PUT /v1/secrets/apps/x", `{"data": {}}`, 422, client.ValidationError},
		{"PUT /v1/secrets/apps/x", `{"data": {"a": "b"}, "secret_type": "` + canary + `"}`, 400, "invalid_secret_type"},
		{"PUT /v1/secrets/apps/x", `{"data": {"a": "b"}, "options": {"max_versions": 0}}`, 422, client.ValidationError},
		{"PUT /v1/secrets/apps/x", `{"data": {"a": "b"}, "options": {"expires_in": "0"}}`, 400, client.InvalidDuration},
		{"PUT /v1/secrets/apps/there", `{"data": {"a": "` + canary + `"}, "options": {"cas": 9}}`, 409, client.VersionConflict},
		{"GET /v1/secrets/apps/none", "", 404, client.SecretNotFound},
		{"GET /v1/secrets/apps/there?version=9", "", 404, "version_not_found"},
		{"GET /v1/secrets/apps/there?version=x", "", 400, ""},
		{"GET /v1/secrets/apps/there:explode", "", 404, client.NotFound},
		{"DELETE /v1/secrets/infra/db/root", "", 409, "secret_in_use"},
		{"POST /v1/secrets/batch", `{"paths": []}`, 400, ""},

		{"POST /v1/policies", `{"name": "x", "rules": [{"path_pattern": "a*b", "permissions": ["read"]}]}`, 400, "invalid_glob"},
		{"POST /v1/policies", `{"name": "x", "rules": [{"path_pattern": "/a", "permissions": ["read"]}]}`, 400, "invalid_glob"},
		{"POST /v1/policies", `{"name": "x", "rules": [{"path_pattern": "a", "permissions": ["everything"]}]}`, 400, "invalid_policy"},
		{"POST /v1/policies", `{"name": "x", "rules": [{"path_pattern": "a", "permissions": ["read"], "conditions": {"ip_ranges": ["nowhere"]}}]}`, 400, "invalid_policy"},
		{"POST /v1/policies", `{"name": "", "rules": []}`, 400, ""},
		{"POST /v1/policies/POLICY/bindings", `{"identity_type": "system", "identity_id": "user:alice"}`, 400, ""},
		{"POST /v1/policies/POLICY/bindings", `{"identity_type": "robot", "identity_id": "robot:r2"}`, 400, ""},
		{"POST /v1/policies/pol_none/bindings", `{"identity_type": "user", "identity_id": "user:alice"}`, 404, client.PolicyNotFound},
		{"DELETE /v1/policies/POLICY", "", 409, "policy_in_use"},
		{"GET /v1/policies/pol_none", "", 404, client.PolicyNotFound},

		{"POST /v1/auth/tokens", `{"name": "x", "scopes": ["everything"]}`, 400, ""},
		{"POST /v1/auth/tokens", `{"name": "x", "expires_in": "0d"}`, 400, client.InvalidDuration},
		{"POST /v1/auth/service-accounts", `{"name": "Bad Name", "scopes": []}`, 400, ""},
		{"DELETE /v1/auth/tokens/tok_none", "", 404, ""},
		{"DELETE /v1/auth/service-accounts/sa_none", "", 404, ""},
		{"GET /v1/audit/logs?from=never", "", 400, ""},
		{"GET /v1/audit/logs?success=perhaps", "", 400, ""},
		{"GET /v1/audit/logs?cursor=" + canary, "", 400, "invalid_cursor"},
		{"GET /v1/nothing/here", "", 404, client.NotFound},
		{"GET /nothing", "", 404, client.NotFound},
		{"PATCH /v1/health", `{}`, 405, "method_not_allowed"},
	}
}

// Bad input is refused with a 4xx that helps; nothing is stored, nothing reaches
// the source, and nothing that could be a secret is said back.
func TestBadInput(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Start(t, 17), createRole)
	v.remember(canary)
	v.engine(t, s, "db", map[string]any{"operation_timeout": "5s"})
	v.role(t, "db", reader("reader"))
	living := v.issue(t, v.admin, "db", "reader", 0)
	if _, err := v.admin.WriteSecret(t.Context(), "apps/there", api.SecretWrite{Data: map[string]json.RawMessage{"a": quoted("b")}}); err != nil {
		t.Fatal(err)
	}
	policy, _ := v.allow(t, "bound", "user", "user:bob", api.PolicyRule{PathPattern: "a/*", Permissions: []api.Permission{"read"}})
	place := strings.NewReplacer("LEASE", living.lease, "POLICY", policy.ID)

	before := v.everything(t, s)
	table := wrong(s)
	for request, good := range goodBodies() {
		table = append(table, spoilt(request, good)...)
	}
	for _, b := range table {
		v.mustRefuse(t, b, place)
	}
	for request, good := range goodBodies() {
		method, path, _ := strings.Cut(place.Replace(request), " ")
		if status, body := v.raw(t, method, path, good, "Content-Type: text/plain"); status != 415 || !strings.Contains(body, "unsupported_media_type") {
			t.Errorf("%s as text/plain: %d %s", request, status, body)
		}
		if status, body := v.raw(t, method, path, good, "Authorization:"); status != 401 {
			t.Errorf("%s by nobody: %d %s", request, status, body)
		}
	}
	form := "grant_type=client_credentials&client_id=sa_x&client_secret=" + canary
	for _, body := range []string{"", "grant_type=password&username=a&password=" + canary, form, form + "&client_id=again", "%zz"} {
		if status, answer := v.raw(t, "POST", "/v1/auth/token", body, "Content-Type: application/x-www-form-urlencoded", "Authorization:"); status/100 != 4 || strings.Contains(answer, canary) {
			t.Errorf("POST /v1/auth/token %q: %d %s", body, status, answer)
		}
	}
	if after := v.everything(t, s); after != before {
		t.Errorf("something was stored, or reached the source\nbefore: %s\nafter:  %s", before, after)
	}
	s.readItems(t, living)
}

func (v *vault) mustRefuse(t *testing.T, b bad, place *strings.Replacer) {
	t.Helper()
	method, path, _ := strings.Cut(place.Replace(b.request), " ")
	response := v.send(t, method, path, b.body)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s: %v", b.request, err)
	}
	what := fmt.Sprintf("%s %.200s: %d %s", b.request, b.body, response.StatusCode, text)
	var answer api.ErrorBody
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Errorf("%s: the answer is no error document", what)
		return
	}
	// Several codes may fit the spoilt ones; the family is told.
	family := b.code == "" && response.StatusCode/100 == 4 && response.StatusCode != 401 && response.StatusCode != 403
	exact := response.StatusCode == b.status && client.Code(answer.Error.Code) == b.code
	if !family && !exact {
		t.Errorf("%s; want %d %s", what, b.status, b.code)
	}
	if len(answer.Error.Message) < 12 || answer.Error.RequestID == "" || answer.Error.RequestID != response.Header.Get("X-Request-ID") {
		t.Errorf("%s: the message helps nobody, or the request id is not that of the header", what)
	}
	if strings.Contains(string(text), canary) && !strings.Contains(b.request, canary) {
		t.Errorf("%s: what was sent is said back", what)
	}
}

// everything is all that is stored and all that is at the source, as one text to
// compare.
func (v *vault) everything(t *testing.T, s *source) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{"/v1/dynamic/engines", "/v1/dynamic/engines/db/roles", "/v1/dynamic/leases", "/v1/secrets", "/v1/secrets/apps/there:metadata",
		"/v1/policies", "/v1/auth/tokens", "/v1/auth/service-accounts"} {
		status, body := v.raw(t, "GET", path+"?", "")
		if status != 200 {
			t.Fatalf("GET %s: %d %s", path, status, body)
		}
		fmt.Fprintf(&all, "%s %s\n", path, strings.TrimSpace(body))
	}
	var source string
	if err := s.query(t, &source, "SELECT string_agg(rolname, ' ' ORDER BY rolname) || (SELECT count(*) FROM pg_class) || ' ' || (SELECT count(*) FROM pg_shdepend) FROM pg_roles"); err != nil {
		t.Fatal(err)
	}
	return all.String() + source
}
