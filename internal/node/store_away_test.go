package node_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/test/pgtest"
)

// TestStoreAwayUnderNodes: without its store a node answers 503 and does nothing at the source; what
// has become due meanwhile is done when the store is back, and nothing is half done.
func TestStoreAwayUnderNodes(t *testing.T) {
	t.Parallel()
	database, source := pgtest.Start(t, 15), pgtest.Shared(t, 15)
	f := startFleet(t, 2, database.SuperURL(database.CreateDB(t)), source, "away")
	f.call(t, f.nodes[0], "POST", f.creds, `{"ttl": "1s"}`, 201)
	kept := f.call(t, f.nodes[1], "POST", f.creds, `{"ttl": "1h"}`, 201)
	id, _ := kept["lease_id"].(string)
	f.call(t, f.nodes[1], "PUT", "/v1/secrets/app/key", `{"data": {"k": "1"}}`, 200) // flushes the confirmations, too

	database.Kill(t)
	before := f.accounts(t)
	for _, n := range f.nodes {
		answer := f.call(t, n, "POST", f.creds, `{"ttl": "1h"}`, 503)
		if e, _ := answer["error"].(map[string]any); e["code"] != "service_unavailable" {
			t.Errorf("without the store: %v", answer)
		}
		f.call(t, n, "POST", "/v1/dynamic/leases/"+id+"/renew", `{"increment": "2h"}`, 503)
		f.call(t, n, "DELETE", "/v1/dynamic/leases/"+id, "", 503)
		f.call(t, n, "GET", "/v1/health", "", 200)
		f.call(t, n, "GET", "/v1/health/ready", "", 503)
	}
	if after := f.accounts(t); after > before {
		t.Errorf("%d accounts were made without the store", after-before)
	}
	database.Start(t)

	for deadline := time.Now().Add(time.Minute); f.accounts(t) != 1; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d accounts after the store's return, want the one that lives", f.accounts(t))
		}
	}
	for _, n := range f.nodes { // each finds its store by itself
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if status, _ := ask(t, n, "GET", "/v1/health/ready", "", ""); status == 200 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a node is not ready after the store's return")
			}
		}
		f.call(t, n, "POST", f.creds, `{"ttl": "1h"}`, 201)
	}
	lease := f.call(t, f.nodes[0], "GET", "/v1/dynamic/leases/"+id, "", 200)
	if lease["status"] != "active" || lease["renewed_at"] != nil {
		t.Errorf("a lease whose renewal and revocation were answered 503: %v", lease)
	}
	f.call(t, f.nodes[1], "DELETE", "/v1/dynamic/leases/"+id, "", 204)
	if answer := f.call(t, f.nodes[0], "GET", "/v1/audit/verify", "", 200); answer["ok"] != true {
		t.Errorf("verify: %v", answer)
	}
}

// TestTransactionsPerCredential: issuing costs two transactions of the store, on one node as on
// three. Other work of the nodes goes on meanwhile, and is given some room.
func TestTransactionsPerCredential(t *testing.T) {
	t.Parallel()
	const issued, room = 100, 20
	source := pgtest.Shared(t, 15)
	for _, count := range []int{1, 3} {
		database := source.SuperURL(source.CreateDB(t))
		f := startFleet(t, count, database, source, "counted")
		commits := func() (n int) {
			c, err := pgx.Connect(t.Context(), database)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(t.Context())
			if err := c.QueryRow(t.Context(), "SELECT sum(commits) FROM nodes").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		f.call(t, f.nodes[0], "POST", f.creds, `{"ttl": "1h"}`, 201) // opens the source
		before := commits()
		for i := range issued {
			f.call(t, f.nodes[i%count], "POST", f.creds, `{"ttl": "1h"}`, 201)
		}
		took := commits() - before
		t.Logf("%d nodes: %d transactions for %d credentials", count, took, issued)
		if took > 2*issued+room {
			t.Errorf("%d nodes: %d transactions for %d credentials", count, took, issued)
		}
	}
}
