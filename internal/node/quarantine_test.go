package node_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/test/pgtest"
)

// expect asks and wants the status.
func expect(t *testing.T, n *node.Node, method, path, token, body string, want int) map[string]any {
	t.Helper()
	status, answer := ask(t, n, method, path, token, body)
	if status != want {
		t.Fatalf("%s %s: %d, want %d: %v", method, path, status, want, answer)
	}
	return answer
}

// wantQuarantine wants the node to look and not to write.
func wantQuarantine(t *testing.T, n *node.Node, token string) {
	t.Helper()
	if ready := expect(t, n, "GET", "/v1/health/ready", "", "", 200); ready["status"] != "quarantine" {
		t.Errorf("ready: %v", ready)
	}
	state := expect(t, n, "GET", "/v1/health/detailed", token, "", 200)["quarantine"].(map[string]any)
	if state["active"] != true || state["reason"] != "older_copy" || state["detail"] == "" {
		t.Errorf("detailed health: %v", state)
	}
	refusal := expect(t, n, "PUT", "/v1/secrets/app/key", token, `{"data": {"k": "2"}}`, 503)["error"].(map[string]any)
	if details, _ := refusal["details"].(map[string]any); details["quarantine"] != "older_copy" {
		t.Errorf("refusal: %v", refusal)
	}
	expect(t, n, "GET", "/v1/secrets/app/key", token, "", 200)
	if verified := expect(t, n, "GET", "/v1/audit/verify", token, "", 200); verified["ok"] != true {
		t.Errorf("verify: %v", verified)
	}
	expect(t, n, "POST", "/v1/sys/resume", token, `{"only_copy": false}`, 400)
}

// The data folder is put back from a copy of before: the server looks and does nothing until an
// administrator says that this is the only copy.
func TestOlderFolderPutBack(t *testing.T) {
	t.Parallel()
	dir, older, keys := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "older"), t.TempDir()
	c := load(t, dir, map[string]string{"SEAL_KEY_FILE": filepath.Join(keys, "seal.key")})
	n := start(t, c, node.Options{})
	token := bootstrapToken(t, dir)
	expect(t, n, "PUT", "/v1/secrets/app/key", token, `{"data": {"k": "1"}}`, 200)
	made := expect(t, n, "POST", "/v1/auth/tokens", token, `{"name": "ended since"}`, 201)
	stop(t, n)
	if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	n = start(t, c, node.Options{})
	expect(t, n, "DELETE", "/v1/auth/tokens/"+made["id"].(string), token, "", 204)
	stop(t, n)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(older, dir); err != nil {
		t.Fatal(err)
	}

	n = start(t, c, node.Options{})
	wantQuarantine(t, n, token)
	expect(t, n, "DELETE", "/v1/auth/tokens/"+made["id"].(string), token, "", 204) // it had come back
	resumed := expect(t, n, "POST", "/v1/sys/resume", token, `{"only_copy": true}`, 200)
	if resumed["active"] != false || resumed["resumed_by"] != "user:admin" {
		t.Errorf("resumed: %v", resumed)
	}
	expect(t, n, "PUT", "/v1/secrets/app/key", token, `{"data": {"k": "2"}}`, 200)
	stop(t, n)
	n = start(t, c, node.Options{})
	expect(t, n, "PUT", "/v1/secrets/app/key", token, `{"data": {"k": "3"}}`, 200)
	if ready := expect(t, n, "GET", "/v1/health/ready", "", "", 200); ready["status"] != "ready" {
		t.Errorf("ready: %v", ready)
	}
}

// Where the witness lies when nobody says.
func TestWitnessPlace(t *testing.T) {
	t.Parallel()
	dir, keys := t.TempDir(), t.TempDir()
	start(t, load(t, dir, nil), node.Options{})
	if _, err := os.Stat(filepath.Join(dir, "witness")); err != nil {
		t.Errorf("the key is in the data folder: %v", err)
	}
	start(t, load(t, t.TempDir(), map[string]string{"SEAL_KEY_FILE": filepath.Join(keys, "seal.key")}), node.Options{})
	if _, err := os.Stat(filepath.Join(keys, "seal.key.witness")); err != nil {
		t.Errorf("the key is elsewhere: %v", err)
	}
}

// The database behind two nodes becomes an older one, as after a failover to a replica that lagged:
// both stop, and both go on when one is told to.
func TestOlderDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	name := server.CreateDB(t)
	env := map[string]string{"DATABASE_URL": server.SuperURL(name), "SEAL_KEY_FILE": filepath.Join(t.TempDir(), "seal.key")}
	dir := t.TempDir()
	a := start(t, load(t, dir, env), node.Options{})
	b := start(t, load(t, t.TempDir(), env), node.Options{})
	token := bootstrapToken(t, dir)
	expect(t, a, "PUT", "/v1/secrets/app/key", token, `{"data": {"k": "1"}}`, 200)
	server.ExecIn(t, name, "UPDATE meta SET value = convert_to('{\"generation\": 0}', 'UTF8') WHERE key LIKE 'generation/%'")

	await := func(n *node.Node, want string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			_, ready := ask(t, n, "GET", "/v1/health/ready", "", "")
			if ready["status"] == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("ready: %v, want %s", ready, want)
			}
		}
	}
	await(a, "quarantine")
	await(b, "quarantine")
	wantQuarantine(t, a, token)
	wantQuarantine(t, b, token)
	expect(t, b, "POST", "/v1/sys/resume", token, `{"only_copy": true}`, 200)
	for range 3 {
		expect(t, a, "PUT", "/v1/secrets/app/key", token, `{"data": {"k": "2"}}`, 200)
		expect(t, b, "PUT", "/v1/secrets/app/key", token, `{"data": {"k": "3"}}`, 200)
	}
	await(a, "ready")
}
