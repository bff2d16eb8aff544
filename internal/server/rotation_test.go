package server_test

import (
	"net/http"
	"strings"
	"testing"
)

// The wire forms of rotation: fixed fields, the list under "data", and slashes of a secret's path as
// they are or escaped.
func TestRotationOnTheWire(t *testing.T) {
	t.Parallel()
	n := start(t)
	admin := caller{t, n, n.Token().Reveal()}
	want := func(method, path, body string, status int, code string) map[string]any {
		t.Helper()
		got, gotCode, answer := admin.do(method, path, body)
		if got != status || gotCode != code {
			t.Fatalf("%s %s: %d %s, want %d %s", method, path, got, gotCode, status, code)
		}
		return answer
	}
	want("PUT", "/v1/secrets/app/db/main", `{"data": {"username": "app", "password": "first"}}`, 200, "")
	p := want("POST", "/v1/rotation/policies", `{"name": "monthly", "interval": "30d", "grace_period": 3600, "warn_before": "7d"}`, 201, "")
	for field, value := range map[string]any{"name": "monthly", "interval": "30d", "interval_seconds": 2592000.0, "grace_period": "1h",
		"warn_before": "7d", "auto_generate": true, "secret_policy_id": nil, "secrets_count": 0.0, "is_active": true} {
		if got, ok := p[field]; !ok || got != value {
			t.Errorf("%s is %v, want %v", field, got, value)
		}
	}
	if hooks, ok := p["webhook_ids"].([]any); !ok || len(hooks) != 0 {
		t.Errorf("webhook_ids is %v", p["webhook_ids"])
	}
	one := "/v1/rotation/policies/" + p["id"].(string)
	want("POST", one+"/secrets", `{"secret_path": "app/db/main"}`, 201, "")
	if list := want("GET", "/v1/rotation/policies", "", 200, "")["data"].([]any); len(list) != 1 || list[0].(map[string]any)["secrets_count"] != 1.0 {
		t.Errorf("the list is %v", list)
	}
	s := want("GET", "/v1/secrets/app/db/main:metadata", "", 200, "")
	if s["rotation_policy_id"] != p["id"] || s["rotation"].(map[string]any)["state"] != "scheduled" {
		t.Errorf("the secret is %v", s)
	}
	s = want("POST", "/v1/secrets/app/db/main:rotate", "", 200, "")
	if _, shown := s["data"]; shown || s["version"] != 2.0 {
		t.Errorf("the rotated secret is %v", s)
	}
	s = want("GET", "/v1/secrets/app/db/main", "", 200, "")["data"].(map[string]any)
	if s["username"] != "app" || s["password"] == "first" {
		t.Errorf("the data are %v", s)
	}
	want("DELETE", one, "", 409, "policy_in_use")
	want("DELETE", one+"/secrets/app%2Fdb%2Fother", "", 404, "secret_not_found")
	want("DELETE", one+"/secrets/app%2Fdb%2Fmain", "", 204, "")
	want("POST", one+"/secrets", `{"secret_path": "app/db/main"}`, 201, "")
	want("DELETE", one+"/secrets/app/db/main", "", 204, "")
	want("DELETE", one+"/secrets/app%2fdb%2fmain", "", 400, "invalid_path")
	want("GET", "/v1/secrets/app%2Fdb%2Fmain", "", 400, "invalid_path")
	want("DELETE", one+"/secrets/..%2F..%2Fmain", "", 400, "invalid_path")
	want("POST", one+"/disable", "", 200, "")
	if p := want("POST", one+"/enable", "", 200, ""); p["is_active"] != true {
		t.Errorf("the policy is %v", p)
	}
	want("DELETE", one, "", 204, "")
}

func TestBadRotations(t *testing.T) {
	t.Parallel()
	n := start(t)
	admin := caller{t, n, n.Token().Reveal()}
	admin.do("PUT", "/v1/secrets/app/a", `{"data": {"one": "1", "two": "2"}}`)
	for _, tt := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": 0}`, 400, "invalid_duration"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": -5}`, 400, "invalid_duration"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": "9s"}`, 400, "invalid_duration"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": "99999999d"}`, 400, "invalid_duration"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval_seconds": 1e3}`, 400, "invalid_request"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval_seconds": 9223372036854775807}`, 400, "invalid_duration"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": "1d", "webhook_ids": ["wh_1"]}`, 400, "invalid_request"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": "1d", "secret_policy_id": "sp_none"}`, 404, "secret_policy_not_found"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": "1d", "secrets_count": 5}`, 400, "invalid_request"},
		{"POST", "/v1/rotation/policies", `{"name": "X", "interval": "1d"}`, 400, "invalid_request"},
		{"POST", "/v1/rotation/policies", `{"name": "x", "interval": "1d", "description": "` + strings.Repeat("d", 1025) + `"}`, 400, "invalid_request"},
		{"PATCH", "/v1/rotation/policies/rot_none", `{"interval": "1d"}`, 404, "rotation_policy_not_found"},
		{"POST", "/v1/rotation/policies/rot_none/rotate", "", 404, "rotation_policy_not_found"},
		{"POST", "/v1/rotation/policies/rot_none/secrets", `{"secret_path": "app/a"}`, 404, "rotation_policy_not_found"},
		{"POST", "/v1/rotation/policies/rot_none/secrets", `{"secret_path": "../a"}`, 400, "invalid_path"},
		{"PUT", "/v1/secrets/app/b", `{"data": {"a": "b"}, "options": {"rotation_policy_id": "rot_none"}}`, 404, "rotation_policy_not_found"},
		{"POST", "/v1/secrets/app/none:rotate", "", 404, "secret_not_found"},
		{"POST", "/v1/secrets/app/a:rotate", "", 400, "invalid_request"}, // which of two fields?
		{"POST", "/v1/secrets/app/a:rotate", `{"cas": 7}`, 409, "version_conflict"},
		{"POST", "/v1/secrets/app/a:rotate", `{"data": {"one": {"nested": 1}}}`, 400, "invalid_secret_type"},
		{"POST", "/v1/secrets/app/a:rotate", `{"secret_policy_id": "sp_none"}`, 404, "secret_policy_not_found"},
		{"POST", "/v1/secret-policies", `{"name": "x", "generator": "nonsense"}`, 422, "validation_error"},
		{"POST", "/v1/secret-policies", `{"name": "x", "generator": "template", "parameters": {"template": "` + strings.Repeat("{{random:9}}", 1000) + `"}}`, 422, "validation_error"},
		{"POST", "/v1/secret-policies", `{"name": "X", "generator": "uuid"}`, 400, "invalid_request"},
		{"POST", "/v1/secret-policies", `{"name": "x", "generator": "uuid", "description": "` + strings.Repeat("d", 1025) + `"}`, 400, "invalid_request"},
		{"POST", "/v1/secret-policies/preview", `{"generator": "rsa_keypair", "parameters": {"bits": 1048576}}`, 422, "validation_error"},
		{"POST", "/v1/secret-policies/preview", `{"generator": "bcrypt_hash", "parameters": {"cost": 31}}`, 422, "validation_error"},
		{"GET", "/v1/secrets?due_before=soon", "", 400, "invalid_request"},
	} {
		if status, code, _ := admin.do(tt.method, tt.path, tt.body); status != tt.status || code != tt.code {
			t.Errorf("%s %s %.80s: %d %s, want %d %s", tt.method, tt.path, tt.body, status, code, tt.status, tt.code)
		}
	}
	if status, _, answer := admin.do(http.MethodGet, "/v1/rotation/policies", ""); status != 200 || len(answer["data"].([]any)) != 0 {
		t.Errorf("something was stored: %v", answer)
	}
}
