package custom_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	good := map[string]any{"runtime": "exec", "command": "program"}
	taken := func(change map[string]any) (engine.Config, error) {
		document := map[string]any{"runtime": "exec", "command": "program"}
		for k, v := range change {
			document[k] = v
		}
		raw, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		return custom.Type{}.ParseConfig(raw)
	}
	const script = "def issue(ctx): pass\ndef revoke(ctx): pass\n"
	for name, r := range map[string]struct {
		change map[string]any
		says   string
	}{
		"unknown field":    {map[string]any{"comand": "x"}, "comand"},
		"no runtime":       {map[string]any{"runtime": ""}, "runtime"},
		"another runtime":  {map[string]any{"runtime": "shell"}, "runtime"},
		"a path":           {map[string]any{"command": "/bin/sh"}, "command"},
		"a way up":         {map[string]any{"command": "../sh"}, "command"},
		"dots":             {map[string]any{"command": ".."}, "command"},
		"an option":        {map[string]any{"command": "-c"}, "command"},
		"a shell's":        {map[string]any{"command": "a;b"}, "command"},
		"nul":              {map[string]any{"command": "a\x00b"}, "command"},
		"nothing":          {map[string]any{"command": ""}, "command"},
		"both":             {map[string]any{"script": "x = 1"}, "script"},
		"many parameters":  {map[string]any{"parameters": strings.Repeat("x", 17<<10)}, "parameters"},
		"no script":        {map[string]any{"runtime": "starlark", "command": ""}, "script"},
		"script, command":  {map[string]any{"runtime": "starlark", "script": "x = 1"}, "command"},
		"script is wrong":  {map[string]any{"runtime": "starlark", "command": "", "script": script + "x = y"}, "line 3, column 5"},
		"no host":          {map[string]any{"runtime": "starlark", "command": "", "script": script, "http_hosts": []string{"http://a.example"}}, "http_hosts"},
		"TLS of a program": {map[string]any{"tls_ca_path": "infra/ca"}, "tls_ca_path"},
		"one connection":   {map[string]any{"max_open_connections": 1}, "max_open_connections"},
		"another's plugin": {map[string]any{"plugin": "redis"}, "plugin"},
	} {
		if _, err := taken(r.change); fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Where the root secret goes is told by everything that leads it: whoever changes it must hold the secret.
	seen := map[string]bool{}
	for _, change := range []map[string]any{
		good, {"command": "other"}, {"parameters": map[string]string{"host": "a"}}, {"parameters": map[string]string{"host": "b"}},
		{"runtime": "starlark", "command": "", "script": script}, {"runtime": "starlark", "command": "", "script": script + "_x = 2"},
		{"runtime": "starlark", "command": "", "script": script, "http_hosts": []string{"a.example"}},
	} {
		c, err := taken(change)
		if err != nil || seen[c.Endpoint] || c.RootCredentialsPath != "" {
			t.Errorf("%v: %+v, %v", change, c, err)
		}
		seen[c.Endpoint] = true
	}
	if _, err := (custom.Type{}).ParseRole(json.RawMessage(`{"parameter": 1}`)); fault.CodeOf(err) != fault.InvalidConfig {
		t.Errorf("a role of an unknown field: %v", err)
	}
}

// What a program gets is what the protocol says, secrets included, and by its input alone.
func TestRequest(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"program": `read -r request
case "$request" in
*'"function":"check"'*) echo '{"ok": true, "functions": ["renew", "list", "lookup"]}';;
*'"function":"issue"'*) printf '{"data": {"request": %s, "environment": "%s", "arguments": "%s"}, "ref": {"id": 7}}' \
	"$(printf %s "$request" | jq -R .)" "$(env | sort | tr '\n' ' ')" "$*";;
*'"function":"lookup"'*) printf '{"state": "usable", "ref": %s}' "$request";;
*'"function":"list"'*) printf '{"accounts": [{"name": "%s"}, {"name": "somebody"}]}' "$(printf %s "$request" | jq -r .parameters.engine.name)";;
*) printf '{"residue": %s}' "$(printf %s "$request" | jq -R .)";;
esac`})
	name := namer().New("reader", 63)
	o := options(t, "program", map[string]any{"parameters": map[string]any{"name": name}})
	o.Root = map[string]statement.Secret{"password": `<"root & secret">`}
	e := open(t, h, o)
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: "lease_1", RoleName: "reader", Role: parseRole(t, `{"parameters": {"r": [1, null]}}`),
		ExpiresAt: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Params: json.RawMessage(`{"parameters": "mine"}`)})
	if err != nil {
		t.Fatal(err)
	}
	p.Deadline = time.Now().Add(time.Minute)
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(p.Data["request"].Reveal()), &got); err != nil {
		t.Fatal(err)
	}
	deadline, err := time.Parse(time.RFC3339, got["deadline"].(string))
	if err != nil || deadline.After(p.Deadline) {
		t.Errorf("deadline %v, %v", got["deadline"], err)
	}
	delete(got, "deadline")
	want := `{"engine":"own","expires_at":"2030-01-02T03:04:05Z","function":"issue","installation":"inst_test","lease_id":"lease_1","name":"` + p.Username +
		`","parameters":{"engine":{"name":"` + name + `"},"request":"mine","role":{"r":[1,null]}},"protocol":1,"role":"reader","root":{"password":"\u003c\"root \u0026 secret\"\u003e"}}`
	if have, _ := json.Marshal(got); string(have) != want {
		t.Errorf("%s\nwant %s", have, want)
	}
	if environment := p.Data["environment"].Reveal(); environment != "LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PWD=/ " || p.Data["arguments"] != "" {
		t.Errorf("environment %q, arguments %q", environment, p.Data["arguments"].Reveal())
	}
	if want := `"ref":{"id":7}`; !strings.Contains(string(recipe), want) || strings.Contains(string(recipe), "secret") {
		t.Errorf("recipe %s", recipe)
	}
	outcome, err := e.Revoke(t.Context(), recipe)
	if err != nil || !strings.Contains(outcome.Residue, `"ref":{"id":7}`) || !strings.Contains(outcome.Residue, `"request":"mine"`) || strings.Contains(outcome.Residue, "root & secret") {
		t.Errorf("revoke got %s, %v", outcome.Residue, err)
	}
	accounts, err := e.(engine.Lister).List(t.Context())
	if err != nil || len(accounts) != 1 || accounts[0].Username != name {
		t.Errorf("%v, %v", accounts, err)
	}
	for _, params := range []string{`{"ttl": 1}`, `{"parameters": "` + strings.Repeat("x", 17<<10) + `"}`, `[]`} {
		_, err := e.Plan(t.Context(), engine.PlanRequest{RoleName: "reader", Role: parseRole(t, `{}`), Params: json.RawMessage(params)})
		if engine.KindOf(err) != engine.Refused {
			t.Errorf("a request of %.20s: %v", params, err)
		}
	}
	if _, err := e.Revoke(t.Context(), engine.Recipe(`{"source": "`+e.SourceID()+`", "username": "postgres"}`)); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("a name that is not ours is revoked: %v", err)
	}
}

// What a program tells of its source and of what it finds there is stored in the clear: a secret of the root in
// it is not, and what was found is found by its name then.
func TestStoredWords(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-of-the-root"
	h := host(t, map[string]string{"finds": `read -r request
case "$request" in
*'"function":"check"'*) echo '{"ok": true, "functions": ["list", "lookup"]}';;
*'"function":"lookup"'*) echo '{"state": "usable", "ref": {"with": "admin:` + secret + `"}}';;
*'"function":"list"'*) printf '{"accounts": [{"name": "%s", "ref": ["` + secret + `"]}]}' "$(printf %s "$request" | jq -r .parameters.engine.name)";;
esac`, "tells": `read -r request; echo '{"ok": true, "source_id": "` + secret + `"}'`})
	name := namer().New("reader", 63)
	o := options(t, "finds", map[string]any{"parameters": map[string]any{"name": name}})
	o.Root = map[string]statement.Secret{"username": "admin", "password": secret}
	e := open(t, h, o)
	found, err := e.Lookup(t.Context(), plan(t, e, time.Minute).Recipe)
	if err != nil || found.State != engine.Usable || strings.Contains(string(found.Recipe), secret) {
		t.Errorf("look up: %+v, %v", found, err)
	}
	accounts, err := e.(engine.Lister).List(t.Context())
	if err != nil || len(accounts) != 1 || accounts[0].Username != name || strings.Contains(string(accounts[0].Recipe), secret) {
		t.Errorf("list: %v, %v", accounts, err)
	}
	o = options(t, "tells", nil)
	o.Root = map[string]statement.Secret{"password": secret}
	if _, err := (custom.Type{Host: h}).Open(t.Context(), o); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "source_id") || strings.Contains(err.Error(), secret) {
		t.Errorf("a source called by a secret: %v", err)
	}
}

// A program that has only what is required: the end is not moved, and what nobody saw the end of is
// revoked by its name.
func TestLeastProgram(t *testing.T) {
	t.Parallel()
	e := open(t, host(t, map[string]string{"program": wellBehaved}), options(t, "program", nil))
	if _, ok := e.(engine.Lister); ok {
		t.Error("it lists")
	}
	p := plan(t, e, time.Minute)
	if err := e.(engine.Renewer).Renew(t.Context(), p.Recipe, time.Now()); err != nil {
		t.Error(err)
	}
	if found, err := e.Lookup(t.Context(), p.Recipe); err != nil || found.State != engine.Unusable {
		t.Errorf("%v, %v", found, err)
	}
	if e.SourceID() != "exec:program" {
		t.Errorf("source %s", e.SourceID())
	}
}

// Of the programs under way one is kept for revocation.
func TestRevocationFindsAPlace(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"program": `read -r request
case "$request" in
*'"function":"check"'*) echo '{"ok": true}';;
*'"function":"issue"'*) sleep 1000;;
*) echo '{}';;
esac`})
	e := open(t, h, options(t, "program", map[string]any{"max_open_connections": 2}))
	done := make(chan error, 2)
	for range 2 {
		p := plan(t, e, 5*time.Second)
		go func() {
			_, err := e.Issue(t.Context(), p)
			done <- err
		}()
	}
	p := plan(t, e, time.Minute)
	for range 3 {
		if _, err := e.Revoke(t.Context(), p.Recipe); err != nil {
			t.Error(err)
		}
	}
	kinds := map[engine.Kind]int{}
	for range 2 {
		kinds[engine.KindOf(<-done)]++
	}
	if kinds[engine.Uncertain] != 1 || kinds[engine.Busy] != 1 {
		t.Errorf("two issuances in one place end as %v", kinds)
	}
}
