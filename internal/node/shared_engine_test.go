package node_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestCredentialsAcrossNodes: what one node issued the other revokes, singly, by prefix while both
// issue, and at its end when the node that issued it is gone.
func TestCredentialsAcrossNodes(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	database, key := server.SuperURL(server.CreateDB(t)), filepath.Join(t.TempDir(), "seal.key")
	dirs := [2]string{t.TempDir(), t.TempDir()}
	var nodes [2]*node.Node
	for i, dir := range dirs {
		nodes[i] = start(t, load(t, dir, map[string]string{"DATABASE_URL": database, "SEAL_KEY_FILE": key,
			"SCAIVAULT_RATE_LIMITS": "off"}), node.Options{})
	}
	a, b := nodes[0], nodes[1]
	admin := bootstrapToken(t, dirs[0])

	source := server.CreateDB(t)
	root, password := server.NewRoot(t, pgtest.Plain)
	setup, err := postgresql.SetupSQL(postgresql.Setup{Root: root, Database: source, Owner: pgtest.Superuser, Way: postgresql.SetupDefiner})
	if err != nil {
		t.Fatal(err)
	}
	server.ExecIn(t, source, setup)
	call := func(n *node.Node, method, path, body string, want ...int) map[string]any {
		t.Helper()
		status, answer := ask(t, n, method, path, admin, body)
		for _, w := range want {
			if status == w {
				return answer
			}
		}
		t.Errorf("%s %s: %d, want %d: %v", method, path, status, want, answer)
		return answer
	}
	call(a, "PUT", "/v1/secrets/infra/db/root", fmt.Sprintf(`{"data": {"username": %q, "password": %q}}`, root, password), 200)
	made := call(a, "POST", "/v1/policies", `{"name": "roots", "rules": [{"path_pattern": "infra/db/root", "permissions": ["read"]}]}`, 201)
	call(b, "POST", fmt.Sprintf("/v1/policies/%v/bindings", made["id"]), `{"identity_type": "system", "identity_id": "system:dynamic-engines"}`, 201)
	call(b, "POST", "/v1/dynamic/engines", fmt.Sprintf(`{"name": "db", "type": "database", "config": {"plugin": "postgresql",
		"connection_url": "postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", "root_credentials_path": "infra/db/root",
		"scram_iterations": 1}}`, server.Addr(), source), 201)
	call(a, "POST", "/v1/dynamic/engines/db/roles", `{"name": "reader", "privileges": ["USAGE ON SCHEMA public"]}`, 201)
	const creds = "/v1/dynamic/engines/db/creds/reader"
	super := server.Superuser(t)
	accounts := func() int {
		t.Helper()
		var n int
		if err := super.QueryRow(t.Context(), "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v\\_reader\\_%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	one := call(a, "POST", creds, `{"ttl": "1h"}`, 201)
	data, _ := one["data"].(map[string]any)
	login := fmt.Sprintf("postgres://%v:%v@%s/%s?sslmode=disable", data["username"], data["password"], server.Addr(), source)
	c, err := pgx.Connect(t.Context(), login)
	if err != nil {
		t.Fatalf("log in with %v: %v", one, err)
	}
	c.Close(t.Context())
	call(b, "DELETE", fmt.Sprint("/v1/dynamic/leases/", one["lease_id"]), "", 204)
	var refused *pgconn.PgError
	if _, err := pgx.Connect(t.Context(), login); !errors.As(err, &refused) {
		t.Errorf("log in after the other node's revocation: %v", err)
	}

	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for range 4 {
				call(nodes[i%2], "POST", creds, `{"ttl": "1h"}`, 201, 409)
			}
		})
	}
	for range 3 {
		call(b, "POST", "/v1/dynamic/leases/revoke-prefix", `{"prefix": "db/reader"}`, 200, 202)
	}
	wg.Wait()
	call(a, "POST", "/v1/dynamic/leases/revoke-prefix?wait=30s", `{"prefix": "db"}`, 200)
	if n := accounts(); n != 0 {
		t.Errorf("%d accounts survived the prefix", n)
	}

	call(a, "POST", creds, `{"ttl": "3s"}`, 201)
	ends := time.Now().Add(3 * time.Second)
	stop(t, a)
	for accounts() != 0 {
		if time.Since(ends) > 10*time.Second {
			t.Fatal("the account outlives its end and the node that made it")
		}
	}
	if answer := call(b, "GET", "/v1/audit/verify", "", 200); answer["ok"] != true {
		t.Errorf("verify: %v", answer)
	}
}
