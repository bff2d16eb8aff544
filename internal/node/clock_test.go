package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/pgtest"
)

// movedClock gives a database a clock that its table ahead.by moves: names are looked up there before
// the ones of PostgreSQL itself.
const movedClock = `CREATE SCHEMA ahead;
	CREATE TABLE ahead.by (years int NOT NULL);
	INSERT INTO ahead.by VALUES (0);
	CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
		AS 'SELECT pg_catalog.clock_timestamp() + make_interval(years => years) FROM ahead.by'`

// TestClockOfTheDatabaseJumps: the clock of a shared store jumps by ten years and back. On both nodes
// credentials live as long as they were given, no less and not much more, and what is dead stays dead.
func TestClockOfTheDatabaseJumps(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	db := server.CreateDB(t)
	server.ExecIn(t, db, movedClock)
	server.Exec(t, "ALTER DATABASE "+db+" SET search_path = public, ahead, pg_catalog")
	f := startFleet(t, 2, server.SuperURL(db), server, "jumps")
	status := func(id any) any {
		return f.call(t, f.nodes[1], "GET", fmt.Sprint("/v1/dynamic/leases/", id), "", 200)["status"]
	}
	long := f.call(t, f.nodes[0], "POST", f.creds, `{"ttl": "1h"}`, 201)["lease_id"]
	var dead []any
	for _, years := range []int{10, 0, -10, 0} {
		const life = 8 * time.Second
		asked := time.Now()
		short := f.call(t, f.nodes[0], "POST", f.creds, `{"ttl": "8s"}`, 201)["lease_id"]
		server.ExecIn(t, db, "UPDATE ahead.by SET years = $1", years)
		for time.Since(asked) < life-time.Second {
			if n := f.accounts(t); n != 2 && time.Since(asked) < life-time.Second {
				t.Fatalf("clock at %d years: %d accounts %s after the short one was asked for", years, n, time.Since(asked))
			}
			time.Sleep(50 * time.Millisecond)
		}
		for f.accounts(t) != 1 {
			if time.Since(asked) > life+time.Minute {
				t.Fatalf("clock at %d years: an account outlives its end", years)
			}
			time.Sleep(50 * time.Millisecond)
		}
		for deadline := time.Now().Add(time.Minute); status(short) != "revoked"; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("clock at %d years: the account is gone, and its lease is %v", years, status(short))
			}
		}
		for _, n := range f.nodes { // once the source has told the time, each issues again
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				made := f.call(t, n, "POST", f.creds, `{"ttl": "1h"}`, 201, 503)
				if id, ok := made["lease_id"]; ok {
					f.call(t, n, "DELETE", fmt.Sprint("/v1/dynamic/leases/", id), "", 204)
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("clock at %d years: nothing is issued: %v", years, made)
				}
			}
		}
		dead = append(dead, short)
	}
	for _, id := range dead {
		if got := status(id); got != "revoked" {
			t.Errorf("a dead lease is %v", got)
		}
	}
	if got := status(long); got != "active" || f.accounts(t) != 1 {
		t.Errorf("the lease that lives is %v, and there are %d accounts", got, f.accounts(t))
	}
	for _, n := range f.nodes {
		if answer := f.call(t, n, "GET", "/v1/audit/verify", "", 200); answer["ok"] != true {
			t.Errorf("verify: %v", answer)
		}
	}
}
