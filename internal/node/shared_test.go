package node_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// TestTwoNodesOnOneDatabase: what is done by one node holds on the other from the next request on,
// whichever way it goes.
func TestTwoNodesOnOneDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	database, key := server.SuperURL(server.CreateDB(t)), filepath.Join(t.TempDir(), "seal.key")
	dirs := [2]string{t.TempDir(), t.TempDir()}
	var nodes [2]*node.Node
	for i, dir := range dirs {
		nodes[i] = start(t, load(t, dir, map[string]string{"DATABASE_URL": database, "SEAL_KEY_FILE": key}), node.Options{})
	}
	a, b := nodes[0], nodes[1]
	if _, err := os.Stat(filepath.Join(dirs[1], "bootstrap-token")); err == nil {
		t.Error("the second node made a first administrator, too")
	}
	admin := bootstrapToken(t, dirs[0])
	expect := func(n *node.Node, method, path, token, body string, want int) map[string]any {
		t.Helper()
		status, answer := ask(t, n, method, path, token, body)
		if status != want {
			t.Fatalf("%s %s: %d, want %d: %v", method, path, status, want, answer)
		}
		return answer
	}
	expect(b, "GET", "/v1/auth/whoami", admin, "", 200)

	expect(a, "PUT", "/v1/secrets/app/key", admin, `{"data": {"k": "1"}}`, 200)
	expect(b, "PUT", "/v1/secrets/app/key", admin, `{"data": {"k": "2"}}`, 200)
	if answer := expect(a, "GET", "/v1/secrets/app/key", admin, "", 200); answer["version"] != 2.0 {
		t.Errorf("secret: %v", answer)
	}

	account := expect(a, "POST", "/v1/auth/service-accounts", admin, `{"name": "ci", "scopes": ["secrets:read"]}`, 201)
	token := login(t, b, account)
	expect(a, "GET", "/v1/secrets/app/key", token, "", 403)
	made := expect(a, "POST", "/v1/policies", admin, `{"name": "readers", "rules": [{"path_pattern": "app/**", "permissions": ["read"]}]}`, 201)
	bindings := "/v1/policies/" + made["id"].(string) + "/bindings"
	bound := expect(b, "POST", bindings, admin, `{"identity_type": "service_account", "identity_id": "sa:ci"}`, 201)
	expect(a, "GET", "/v1/secrets/app/key", token, "", 200)
	expect(b, "DELETE", bindings+"/"+bound["id"].(string), admin, "", 204)
	expect(a, "GET", "/v1/secrets/app/key", token, "", 403)
	expect(a, "DELETE", "/v1/auth/service-accounts/"+account["id"].(string), admin, "", 204)
	expect(b, "GET", "/v1/secrets/app/key", token, "", 401)

	verified := expect(b, "GET", "/v1/audit/verify", admin, "", 200)
	if verified["ok"] != true {
		t.Errorf("verify: %v", verified)
	}
}

// login trades a service account's credentials for a token.
func login(t *testing.T, n *node.Node, account map[string]any) (token string) {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"},
		"client_id": {account["client_id"].(string)}, "client_secret": {account["client_secret"].(string)}}
	req, err := http.NewRequestWithContext(t.Context(), "POST", n.URL()+"/v1/auth/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.AccessToken == "" {
		t.Fatalf("log in: %d, %v", resp.StatusCode, err)
	}
	return answer.AccessToken
}

// TestSharedStoreNeedsItsKey: a node without the key, or with another one, changes nothing.
func TestSharedStoreNeedsItsKey(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	database, dir := server.SuperURL(server.CreateDB(t)), t.TempDir()
	start(t, load(t, dir, map[string]string{"DATABASE_URL": database}), node.Options{})
	stop(t, start(t, load(t, filepath.Join(dir, "other"), nil), node.Options{}))

	for name, key := range map[string]string{"no": filepath.Join(dir, "none.key"), "another": filepath.Join(dir, "other", "seal.key")} {
		c := load(t, t.TempDir(), map[string]string{"DATABASE_URL": database, "SEAL_KEY_FILE": key})
		n, err := node.Start(t.Context(), c, node.Options{Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			stop(t, n)
			t.Fatalf("the node started with %s key", name)
		}
		if strings.Contains(err.Error(), server.SuperPassword()) {
			t.Errorf("%s key: the error holds the database's password", name)
		}
		if left, err := os.ReadDir(c.DataDir); err != nil || len(left) != 0 {
			t.Errorf("%s key: the refused node left %v, %v", name, left, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none.key")); err == nil {
		t.Error("a key was made beside data of another")
	}
}

// TestFirstNodesStartTogether: nodes that start at once on an empty database make one store. Of
// those that were given no common key one makes it, and the others say what they lack.
func TestFirstNodesStartTogether(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	together := func(keyOf func(dir string) string) (started []*node.Node, refused []error, keys int) {
		database := server.SuperURL(server.CreateDB(t))
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 3 {
			dir := t.TempDir()
			c := load(t, dir, map[string]string{"DATABASE_URL": database, "SEAL_KEY_FILE": keyOf(dir)})
			all.Go(func() {
				n, err := node.Start(t.Context(), c, node.Options{Logger: slog.New(slog.DiscardHandler)})
				mu.Lock()
				defer mu.Unlock()
				if _, missing := os.Stat(c.SealKeyFile); missing == nil {
					keys++
				}
				if err != nil {
					refused = append(refused, err)
				} else {
					started = append(started, n)
				}
			})
		}
		all.Wait()
		for _, n := range started {
			stop(t, n)
		}
		return started, refused, keys
	}
	key := filepath.Join(t.TempDir(), "seal.key")
	if started, refused, _ := together(func(string) string { return key }); len(started) != 3 {
		t.Errorf("with one key %d nodes started: %v", len(started), refused)
	}
	started, refused, keys := together(func(dir string) string { return filepath.Join(dir, "own.key") })
	if len(started) != 1 || keys != 1 {
		t.Errorf("with a key each %d nodes started, and %d keys are left", len(started), keys)
	}
	for _, err := range refused {
		if !strings.Contains(err.Error(), "SEAL_KEY_FILE") {
			t.Errorf("the refusal does not say what to do: %v", err)
		}
	}
}
