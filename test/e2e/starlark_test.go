package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/test/rabbitmqtest"
)

// scripting lets scripts speak to this machine.
func scripting() []string {
	return []string{"CUSTOM_SCRIPT_HOSTS=127.0.0.1", "CUSTOM_SCRIPT_NETWORKS=127.0.0.0/8"}
}

// TestScript is the life of users of a real RabbitMQ, which the script of the guide makes.
func TestScript(t *testing.T) {
	t.Parallel()
	server, err := rabbitmqtest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	const root, password = "scaivault", "root-of-the-messages"
	if err := server.AddUser(root, password, "administrator"); err != nil {
		t.Fatal(err)
	}
	v := newVault(t, scripting()...)
	text, err := os.ReadFile("../../docs/examples/rabbitmq.star")
	if err != nil {
		t.Fatal(err)
	}
	v.scriptEngine(t, "messages", string(text), []string{"http://" + server.API}, root, password, false)
	v.role(t, "messages", client.Document{"name": "worker", "parameters": client.Document{"write": ".*", "read": ".*", "configure": ".*"}})
	app := v.account(t, "app", "dynamic/messages/worker")

	login := func(c credential) (*rabbitmqtest.Session, error) {
		return server.Login(t.Context(), c.username, c.password)
	}
	c := v.issue(t, app, "messages", "worker", time.Minute)
	open, err := login(c)
	if err != nil || !open.Works(t.Context()) {
		t.Fatalf("the credential does not work: %v", err)
	}
	longer := api.Duration(30 * time.Minute)
	if _, err := app.RenewLease(t.Context(), c.lease, api.RenewRequest{Increment: &longer}); err != nil {
		t.Errorf("renew: %v", err)
	}
	v.revoke(t, c)
	if open.Works(t.Context()) {
		t.Error("an open session goes on after the revocation was answered")
	}
	if _, err := login(c); err == nil {
		t.Error("who was revoked logs in")
	}

	short := v.issue(t, app, "messages", "worker", time.Second)
	v.Kill(t)
	v.again(t)
	eventually(t, time.Minute, "who expired while ScaiVault was dead is refused", func() bool { return v.lease(t, short.lease).Status == api.LeaseRevoked })
	if _, err := login(short); err == nil {
		t.Error("who expired logs in")
	}
	if h, err := v.admin.EngineHealth(t.Context(), "messages"); err != nil || h.Status != "healthy" {
		t.Errorf("health: %+v, %v", h, err)
	}
	if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chain does not verify: %+v, %v", report, err)
	}
}

// TestScriptRefused: what is wrong with a script is said when the engine is made, with its place.
func TestScriptRefused(t *testing.T) {
	t.Parallel()
	v := newVault(t, scripting()...)
	const whole = "def issue(ctx): pass\ndef revoke(ctx): pass\n"
	for name, tt := range map[string]struct {
		script string
		hosts  []string
		says   string
	}{
		"syntax":         {whole + "def x(:", nil, "line 3, column"},
		"no revoke":      {"def issue(ctx): pass", nil, "revoke"},
		"load":           {whole + `load("x", "y")`, nil, "load"},
		"slip":           {whole + "def reissue(ctx): pass", nil, "reissue"},
		"other host":     {whole, []string{"example.com"}, "CUSTOM_SCRIPT_HOSTS"},
		"clear text":     {whole, []string{"http://example.com"}, "https"},
		"top level":      {whole + "x = 1 // 0\n", nil, "program_failed at line 3"},
		"check says no":  {whole + "def check(ctx): return {'error': {'kind': 'misconfigured', 'message': 'no right'}}\n", nil, "no right"},
		"check is wrong": {whole + "def check(ctx): return {'okay': True}\n", nil, "program_reply_invalid"},
	} {
		_, err := v.admin.CreateEngine(t.Context(), scriptDocument(t, "bad", tt.script, tt.hosts, nil))
		if !errors.Is(err, client.InvalidConfig) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostileScript: what a script does to the server, it does to itself only. It ends in time with an
// error that tells where, nothing of it is left running, no secret is shown, and the engine beside it
// goes on.
func TestHostileScript(t *testing.T) {
	t.Parallel()
	var inside atomic.Int64
	loopback := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	t.Cleanup(loopback.Close)
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, loopback.URL, http.StatusTemporaryRedirect)
		case "/huge":
			block := strings.Repeat("x", 1<<20)
			for range 1 << 10 {
				if _, err := io.WriteString(w, block); err != nil {
					return
				}
			}
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		case "/silent":
			<-r.Context().Done()
		}
	}))
	t.Cleanup(source.Close)

	const password = "never-to-be-shown-4711"
	v := newVault(t, scripting()...)
	v.scriptEngine(t, "good", "def issue(ctx): return {'data': {'password': random.password()}}\ndef revoke(ctx): pass\n", []string{source.URL}, "admin", password, false)
	v.role(t, "good", client.Document{"name": "reader"})
	deeds := map[string]struct{ body, code string }{
		"loops":       {"while True: _x = 1", script.CodeSteps},
		"recurses":    {"_deeper(1)", script.CodeScript},
		"repeats":     {"_hold(lambda i: 'a' * (1000000000 + i))", script.CodeMemory},
		"doubles":     {"_double()", script.CodeMemory},
		"lists":       {"_hold(lambda i: [i] * 10000000)", script.CodeMemory},
		"tells":       {"fail(root.password)", script.CodeScript},
		"prints":      {"print(root, root.password, [root.password]); fail('%s' % root.password)", script.CodeScript},
		"echoes":      {"fail(http.post(ctx.parameters['engine']['url'] + '/echo', body=root.password).body)", script.CodeScript},
		"floods":      {"_flood(ctx)", script.CodeRequests},
		"redirects":   {"fail(str(http.get(ctx.parameters['engine']['url'] + '/redirect').status))", script.CodeScript},
		"downloads":   {"http.get(ctx.parameters['engine']['url'] + '/huge')", script.CodeHTTP},
		"waits":       {"http.get(ctx.parameters['engine']['url'] + '/silent')", script.CodeTime},
		"sleeps":      {"_sleep()", script.CodeTime},
		"outputs":     {"return {'data': {'a': 'x' * 10000000}}", script.CodeOutput},
		"elsewhere":   {fmt.Sprintf("http.get('http://%s/')", loopback.Listener.Addr()), script.CodeHost},
		"the server":  {"http.get('" + v.URL + "/')", script.CodeHost},
		"leaks a ref": {"return {'data': {'a': 'b'}, 'ref': root.password}", script.CodeOutput},
	}
	helpers := `
def _deeper(n): return _deeper(n + 1)
def _hold(f):
    x = []
    for i in range(1000): x.append(f(i))
def _double():
    x = 'a'
    while True: x += x
def _flood(ctx):
    while True: http.get(ctx.parameters['engine']['url'])
def _sleep():
    while True: time.sleep(time.hour)
def revoke(ctx): pass
def issue(ctx):
    `
	for name, deed := range deeds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := strings.ReplaceAll(name, " ", "-")
			v.scriptEngine(t, engine, helpers+deed.body+"\n", []string{source.URL, v.URL}, "admin", password, deed.code == script.CodeTime)
			v.role(t, engine, client.Document{"name": "reader"})
			_, err := v.admin.GenerateCredential(t.Context(), engine, "reader", api.CredsRequest{})
			var refused *client.Error
			if !errors.As(err, &refused) || !strings.Contains(refused.Message, deed.code+" at ") || strings.Contains(fmt.Sprint(refused), password) {
				t.Errorf("%v", err)
			}
			v.revoke(t, v.issue(t, v.admin, "good", "reader", time.Minute))
		})
	}
	t.Cleanup(func() {
		if n := inside.Load(); n > 0 {
			t.Errorf("a listener of this machine that is on no list got %d requests", n)
		}
		eventually(t, time.Minute, "no interpreter is left running", func() bool { return len(v.interpreters(t)) == 0 })
	})
}

// interpreters are the processes that the server has started for scripts.
func (v *vault) interpreters(t *testing.T) (found []string) {
	t.Helper()
	var dev struct {
		PID int `json:"pid"`
	}
	text, err := os.ReadFile(filepath.Join(v.Dir, "dev.json"))
	if err == nil {
		err = json.Unmarshal(text, &dev)
	}
	if err != nil || dev.PID == 0 {
		t.Fatalf("find the server's process: %v", err)
	}
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", dev.PID)) {
			found = append(found, string(status))
		}
	}
	return found
}

// scriptEngine makes an engine of a script that may speak to hosts; the first is its parameter url.
// Hasty is one with little patience.
func (v *vault) scriptEngine(t *testing.T, name, text string, hosts []string, root, password string, hasty bool) {
	t.Helper()
	v.remember(password)
	_, err := v.admin.WriteSecret(t.Context(), rootPath(name), api.SecretWrite{Data: map[string]json.RawMessage{
		"username": quoted(root), "password": quoted(password),
	}})
	if err != nil {
		t.Fatalf("write the root secret of %s: %v", name, err)
	}
	more := map[string]any{"root_credentials_path": rootPath(name), "parameters": map[string]string{"url": hosts[0]}}
	if hasty {
		more["operation_timeout"] = "5s"
	}
	document := scriptDocument(t, name, text, hosts, more)
	if _, err := v.admin.CreateEngine(t.Context(), document); err != nil {
		t.Fatalf("make the engine %s: %v; output: %s", name, err, v.Output())
	}
}

func scriptDocument(t *testing.T, name, text string, hosts []string, more map[string]any) api.EngineRequest {
	t.Helper()
	config := map[string]any{"runtime": "starlark", "script": text, "http_hosts": hosts, "operation_timeout": "60s"}
	for key, value := range more {
		config[key] = value
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return api.EngineRequest{Name: name, Type: "custom", Config: raw}
}
