package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/internal/server"
)

// exception is a route that answers a caller whom no policy allows anything with something else
// than 403 access_denied, and why.
type exception struct {
	status int
	reason string
	always bool // whatever the token's scope
}

const (
	filtered = "the list shows only what policy lets the caller see"
	lookedUp = "a lease's path is found by its id, and an id of none has none"
)

var exceptions = map[string]exception{
	"GET /secrets":                     {200, filtered, false},
	"POST /secrets/batch":              {200, "each path is judged and answered for itself", false},
	"GET /dynamic/engines":             {200, filtered, false},
	"GET /dynamic/leases":              {200, filtered, false},
	"GET /dynamic/leases/{id}":         {404, lookedUp, false},
	"POST /dynamic/leases/{id}/renew":  {404, lookedUp, false},
	"DELETE /dynamic/leases/{id}":      {404, lookedUp, false},
	"POST /dynamic/leases/{id}/revoke": {404, lookedUp, false},
	"GET /policies":                    {200, filtered, false},
	"GET /rotation/policies":           {200, filtered, false},
	"GET /secret-policies":             {200, filtered, false},
	"GET /auth/whoami":                 {200, "everybody may ask who they are", false},
	"POST /auth/tokens":                {201, "a token of one's own identity, with no more than one has", false},
	"GET /auth/tokens":                 {200, "one's own tokens", false},
	"GET /auth/service-accounts":       {200, filtered, false},
}

// bodies are for routes that read their body before they know what is asked for.
var bodies = map[string]string{
	"POST /secrets/batch": `{"paths": ["none"]}`,
	"POST /dynamic/engines": `{"name": "none", "type": "database", "config": {"plugin": "postgresql",
		"connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/none", "root_credentials_path": "none"}}`,
	"POST /dynamic/engines/{engine}/roles": `{"name": "none", "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'"]}`,
	"POST /dynamic/leases/revoke-prefix":   `{"prefix": "none"}`,
	"POST /dynamic/leases/revoke":          `{"engine": "none"}`,
	"POST /rotation/policies/{id}/secrets": `{"secret_path": "none"}`,
	"POST /policies/test":                  `{"identity_id": "user:none", "path": "none", "permission": "read"}`,
	"POST /auth/tokens":                    `{"name": "none"}`,
}

// caller sends requests with one token.
type caller struct {
	t     testing.TB
	node  *node.Node
	token string
}

func (c caller) do(method, path, body string) (status int, code string, answer map[string]any) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.node.URL()+path, bytes.NewBufferString(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &answer); err != nil {
			c.t.Fatalf("%s %s: no JSON: %q", method, path, raw)
		}
	}
	if e, ok := answer["error"].(map[string]any); ok {
		code, _ = e["code"].(string)
	}
	return resp.StatusCode, code, answer
}

// with is a caller of the same identity whose token has these scopes only.
func (c caller) with(scopes ...string) caller {
	c.t.Helper()
	body, err := json.Marshal(map[string]any{"name": "matrix", "scopes": scopes})
	if err != nil {
		c.t.Fatal(err)
	}
	status, _, answer := c.do("POST", "/v1/auth/tokens", string(body))
	if status != http.StatusCreated {
		c.t.Fatalf("make a token: %d, %v", status, answer)
	}
	c.token = answer["token"].(string)
	return c
}

// stranger is a service account that no policy is bound to, with every scope.
func (c caller) stranger() caller {
	c.t.Helper()
	status, _, account := c.do("POST", "/v1/auth/service-accounts", `{"name": "stranger", "scopes": ["admin"]}`)
	if status != http.StatusCreated {
		c.t.Fatalf("make an account: %d, %v", status, account)
	}
	resp, err := (&http.Client{}).PostForm(c.node.URL()+"/v1/auth/token", map[string][]string{"grant_type": {"client_credentials"},
		"client_id": {account["client_id"].(string)}, "client_secret": {account["client_secret"].(string)}})
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil || token.AccessToken == "" {
		c.t.Fatalf("get a token: %d, %v", resp.StatusCode, err)
	}
	c.token = token.AccessToken
	return c
}

var parameter = regexp.MustCompile(`\{[a-z_.]+\}`)

// TestAccessMatrix asks every route that needs a token as a caller without one, one whose token
// lacks the scope, one whom no policy allows anything, and one of another tenant.
func TestAccessMatrix(t *testing.T) {
	t.Parallel()
	n := start(t)
	admin := caller{t, n, n.Token().Reveal()}
	stranger := admin.stranger()
	refused := 0
	for _, rt := range server.Routes() {
		name := rt.Method + " " + rt.Pattern
		if rt.Public {
			continue
		}
		path := parameter.ReplaceAllString(rt.Pattern, "none")
		body := ""
		if rt.Body {
			body = "{}"
		}
		if b, ok := bodies[name]; ok {
			body = b
		}
		check := func(as string, c caller, prefix string, status int, code string) {
			t.Helper()
			refused++
			if got, gotCode, _ := c.do(rt.Method, prefix+path, body); got != status || code != "" && gotCode != code {
				t.Errorf("%s as %s: %d %s, want %d %s", name, as, got, gotCode, status, code)
			}
		}
		check("nobody", caller{t, n, ""}, "/v1", 401, "authentication_required")
		check("a made-up token", caller{t, n, "skt_made-up"}, "/v1", 401, "token_invalid")
		check("one of another tenant", admin, "/v1/t/tnt_00000000000000000000000000", 404, "tenant_not_found")
		e, declared := exceptions[name]
		if len(rt.Scopes) > 0 && !e.always {
			var others []string
			for _, s := range access.Scopes() {
				if s != access.ScopeAdmin && !slices.Contains(rt.Scopes, s) {
					others = append(others, s)
				}
			}
			check("an administrator without the scope", admin.with(others...), "/v1", 403, "insufficient_scope")
		}
		if declared {
			check("a stranger ("+e.reason+")", stranger, "/v1", e.status, "")
		} else {
			check("a stranger", stranger, "/v1", 403, "access_denied")
		}
	}
	for name := range exceptions {
		if !slices.ContainsFunc(server.Routes(), func(rt server.Route) bool { return rt.Method+" "+rt.Pattern == name }) {
			t.Errorf("there is no route %s", name)
		}
	}
	t.Logf("%d refusals", refused)
}

// TestEveryRouteIsReached proves that the table and the mux agree: no route answers not_found or
// method_not_allowed of the router.
func TestEveryRouteIsReached(t *testing.T) {
	t.Parallel()
	n := start(t)
	nobody := caller{t, n, ""}
	for _, rt := range server.Routes() {
		path := parameter.ReplaceAllString(rt.Pattern, "none")
		if strings.HasSuffix(path, ".yaml") || path == "/docs" {
			continue // no JSON: they have tests of their own
		}
		for _, prefix := range []string{"/v1", "/v1/t/tnt_default"} {
			_, code, _ := nobody.do(rt.Method, prefix+path, "")
			if code == "not_found" || code == "method_not_allowed" || code == "internal_error" {
				t.Errorf("%s %s%s: %s", rt.Method, prefix, path, code)
			}
		}
	}
}
