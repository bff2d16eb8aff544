package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/node"
)

// load is a configuration on free ports.
func load(t *testing.T, dir string, more map[string]string) *config.Config {
	t.Helper()
	c, err := config.Load(func(env string) (string, bool) {
		if v, ok := more[env]; ok {
			return v, true
		}
		v, ok := map[string]string{"DATA_DIR": dir, "BIND_ADDRESS": "127.0.0.1:0", "METRICS_ADDRESS": "off"}[env]
		return v, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func start(t *testing.T, c *config.Config, o node.Options) *node.Node {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n, err := node.Start(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, n) })
	return n
}

func stop(t *testing.T, n *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Shutdown(ctx); err != nil {
		t.Errorf("shut down: %v", err)
	}
}

func ask(t *testing.T, n *node.Node, method, path, token, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, n.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatalf("%s %s: answer is no JSON: %q", method, path, raw)
		}
	}
	return resp.StatusCode, answer
}

func bootstrapToken(t *testing.T, dir string) string {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "bootstrap-token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("bootstrap token: %v, %v", info, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "bootstrap-token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestFirstStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var logs bytes.Buffer
	began := time.Now()
	n := start(t, load(t, dir, nil), node.Options{Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	t.Logf("start to ready: %v", time.Since(began))
	if status, answer := ask(t, n, "GET", "/v1/health/ready", "", ""); status != 200 || answer["status"] != "ready" {
		t.Errorf("ready: %d, %v", status, answer)
	}
	token := bootstrapToken(t, dir)
	if status, answer := ask(t, n, "GET", "/v1/auth/whoami", token, ""); status != 200 || answer["identity_id"] != "user:admin" {
		t.Errorf("whoami: %d, %v", status, answer)
	}
	if _, err := os.Stat(filepath.Join(dir, "bootstrap-token")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the bootstrap token's file after its first use: %v, want it gone", err)
	}
	if status, _ := ask(t, n, "GET", "/v1/auth/whoami", token, ""); status != 200 {
		t.Errorf("the token after its file is gone: %d", status)
	}
	stop(t, n)
	if strings.Contains(logs.String(), token) {
		t.Error("the log holds the bootstrap token")
	}
}

func TestTheSameStoreGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, load(t, dir, nil), node.Options{Dev: true})
	first := n.Token().Reveal()
	if status, answer := ask(t, n, "PUT", "/v1/secrets/app/db", first, `{"data": {"password": "canary"}}`); status != 200 {
		t.Fatalf("write: %d, %v", status, answer)
	}
	stop(t, n)

	n = start(t, load(t, dir, nil), node.Options{Dev: true})
	if status, answer := ask(t, n, "GET", "/v1/secrets/app/db", first, ""); status != 401 {
		t.Errorf("the token of the former start: %d, %v, want 401", status, answer)
	}
	status, answer := ask(t, n, "GET", "/v1/secrets/app/db", n.Token().Reveal(), "")
	if data, _ := answer["data"].(map[string]any); status != 200 || data["password"] != "canary" {
		t.Errorf("read: %d, %v", status, answer)
	}
	if status, answer := ask(t, n, "GET", "/v1/audit/verify", n.Token().Reveal(), ""); status != 200 || answer["ok"] != true {
		t.Errorf("verify: %d, %v", status, answer)
	}
	if _, err := os.Stat(filepath.Join(dir, "bootstrap-token")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("dev wrote a bootstrap token: %v", err)
	}
}

// content is every file of a folder, for telling whether anything changed.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "-shm") {
			return err
		}
		raw, err := os.ReadFile(path)
		if len(raw) > 0 || !strings.HasSuffix(path, "-wal") { // who only looks leaves an empty one
			files[path] = string(raw)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestWrongKeyChangesNothing(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	n := start(t, load(t, dir, nil), node.Options{})
	stop(t, n)
	stop(t, start(t, load(t, other, nil), node.Options{}))

	before := content(t, dir)
	for name, key := range map[string]string{"another": filepath.Join(other, "seal.key"), "no": filepath.Join(other, "none.key")} {
		c := load(t, dir, map[string]string{"SEAL_KEY_FILE": key})
		if n, err := node.Start(t.Context(), c, node.Options{Logger: slog.New(slog.DiscardHandler)}); err == nil {
			stop(t, n)
			t.Fatalf("the node started with %s key", name)
		}
		after := content(t, dir)
		if len(after) != len(before) {
			t.Errorf("%s key: %d files, were %d", name, len(after), len(before))
		}
		for path, was := range before {
			if after[path] != was {
				t.Errorf("%s key: %s has changed", name, filepath.Base(path))
			}
		}
		if _, err := os.Stat(filepath.Join(other, "none.key")); err == nil {
			t.Error("a key was made beside data of another")
		}
	}
	start(t, load(t, dir, nil), node.Options{})
}

func TestBootstrapOnTheHost(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sv") //nolint:usetesting // it holds a socket, whose path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := load(t, dir, nil)
	quiet := node.Options{Logger: slog.New(slog.DiscardHandler)}
	if _, err := node.Bootstrap(t.Context(), c, quiet); err == nil {
		t.Error("a store was made for a bootstrap token")
	}
	n := start(t, c, quiet)
	first := bootstrapToken(t, dir)
	if _, err := node.Bootstrap(t.Context(), c, quiet); err != nil {
		t.Fatalf("while the server runs: %v", err)
	}
	second := bootstrapToken(t, dir)
	stop(t, n)
	if _, err := node.Bootstrap(t.Context(), c, quiet); err != nil {
		t.Fatalf("while it is stopped: %v", err)
	}
	third := bootstrapToken(t, dir)
	if first == second || second == third {
		t.Error("the same token was given twice")
	}
	n = start(t, c, quiet)
	for _, token := range []string{first, second, third} {
		if status, answer := ask(t, n, "GET", "/v1/auth/whoami", token, ""); status != 200 {
			t.Errorf("whoami: %d, %v", status, answer)
		}
	}
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	n := start(t, load(t, t.TempDir(), nil), node.Options{})
	dir := filepath.Join(t.TempDir(), "data")
	c := load(t, dir, map[string]string{"BIND_ADDRESS": n.Addr().String()})
	if n, err := node.Start(t.Context(), c, node.Options{Logger: slog.New(slog.DiscardHandler)}); err == nil {
		stop(t, n)
		t.Fatal("two servers listen on one port")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed start made the data folder: %v", err)
	}
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	n := start(t, load(t, t.TempDir(), map[string]string{"SCAIVAULT_RATE_LIMITS": "dynamic_admin=2"}), node.Options{Dev: true})
	for i, want := range []int{200, 200, 429} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", n.URL()+"/v1/dynamic/engines", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+n.Token().Reveal())
		resp, err := (&http.Client{}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want || resp.Header.Get("X-RateLimit-Limit") != "2" || resp.Header.Get("X-RateLimit-Reset") == "" {
			t.Errorf("call %d: %d, %v, want %d", i+1, resp.StatusCode, resp.Header, want)
		}
		if left := resp.Header.Get("X-RateLimit-Remaining"); left != []string{"1", "0", "0"}[i] {
			t.Errorf("call %d: %s remaining", i+1, left)
		}
		if (resp.Header.Get("Retry-After") != "") != (want == 429) {
			t.Errorf("call %d: Retry-After is %q", i+1, resp.Header.Get("Retry-After"))
		}
	}
}

// TestTheLogHoldsNoPath: a path and a query are the caller's business.
func TestTheLogHoldsNoPath(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	n := start(t, load(t, t.TempDir(), nil), node.Options{Dev: true, Logger: slog.New(slog.NewJSONHandler(&logs, nil))})
	token := n.Token().Reveal()
	ask(t, n, "PUT", "/v1/secrets/canary-path/x", token, `{"data": {"a": "canary-value"}}`)
	ask(t, n, "GET", "/v1/secrets?prefix=canary-query", token, "")
	stop(t, n)
	if !strings.Contains(logs.String(), `"path_category":"secrets"`) {
		t.Errorf("requests are not logged: %s", logs.String())
	}
	for _, secret := range []string{"canary", token} {
		if strings.Contains(logs.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}
