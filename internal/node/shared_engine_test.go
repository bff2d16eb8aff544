package node_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/test/pgtest"
)

// TestCredentialsAcrossNodes: what one node issued the other revokes, singly, by prefix while both
// issue, and at its end when the node that issued it is gone.
func TestCredentialsAcrossNodes(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	f := startFleet(t, 2, server.SuperURL(server.CreateDB(t)), server, "across")
	a, b := f.nodes[0], f.nodes[1]

	one := f.call(t, a, "POST", f.creds, `{"ttl": "1h"}`, 201)
	data, _ := one["data"].(map[string]any)
	login := fmt.Sprintf("postgres://%v:%v@%s/%s?sslmode=disable", data["username"], data["password"], server.Addr(), f.db)
	c, err := pgx.Connect(t.Context(), login)
	if err != nil {
		t.Fatalf("log in with %v: %v", one, err)
	}
	c.Close(t.Context())
	if n := f.accounts(t); n != 1 {
		t.Fatalf("%d accounts after one was issued", n)
	}
	f.call(t, b, "DELETE", fmt.Sprint("/v1/dynamic/leases/", one["lease_id"]), "", 204)
	var refused *pgconn.PgError
	if _, err := pgx.Connect(t.Context(), login); !errors.As(err, &refused) {
		t.Errorf("log in after the other node's revocation: %v", err)
	}

	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for range 4 {
				f.call(t, f.nodes[i%2], "POST", f.creds, `{"ttl": "1h"}`, 201, 409)
			}
		})
	}
	for range 3 {
		f.call(t, b, "POST", "/v1/dynamic/leases/revoke-prefix", `{"prefix": "db/across"}`, 200, 202)
	}
	wg.Wait()
	f.call(t, a, "POST", "/v1/dynamic/leases/revoke-prefix?wait=30s", `{"prefix": "db"}`, 200)
	if n := f.accounts(t); n != 0 {
		t.Errorf("%d accounts survived the prefix", n)
	}

	f.call(t, a, "POST", f.creds, `{"ttl": "3s"}`, 201)
	ends := time.Now().Add(3 * time.Second)
	stop(t, a)
	for f.accounts(t) != 0 {
		if time.Since(ends) > time.Minute {
			t.Fatal("the account outlives its end and the node that made it")
		}
	}
	if answer := f.call(t, b, "GET", "/v1/audit/verify", "", 200); answer["ok"] != true {
		t.Errorf("verify: %v", answer)
	}
}
