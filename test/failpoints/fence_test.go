package failpoints_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/planted"
	"github.com/scaivault/scaivault/test/vaulttest"
)

const (
	issuers       = 20
	answersBefore = 30 // a revocation, at least
)

// TestFenceRounds revokes what 20 callers of three nodes are being issued, while
// each issuance is held up before its intent is committed, and again before it
// goes to the source (law L5). When the revocation is reported done, nothing that
// was asked for before it lives, or comes to live.
func TestFenceRounds(t *testing.T) {
	t.Parallel()
	rounds := 3
	if full() {
		rounds = 50
	}
	f := newFencing(t, vaulttest.Failing(t))
	f.run(t, rounds)
	survivors := f.survivors(t)
	for _, s := range survivors {
		t.Error(s)
	}
	t.Logf("rounds %d, credentials answered %d, withheld %d, revoked by the rounds %d in at most %.1fs each, survivors %d",
		rounds, len(f.answered), f.withheld, f.revoked, f.longest.Seconds(), len(survivors))
	if f.withheld == 0 {
		t.Error("no issuance was caught by a revocation: the rounds have shown nothing")
	}
	if full() {
		t.Run("without the lock", testUnlocked)
	}
}

// testUnlocked shows that the rounds would tell: the same with intents that take
// no lock.
func testUnlocked(t *testing.T) {
	t.Parallel()
	fault := planted.Fault{Name: "an intent without the lock of its tenant", Package: "internal/lease", Edits: []planted.Edit{{File: "issue.go",
		From: "			if err := tx.LockTenant(i.lease.Tenant, false); err != nil {\n				return err\n			}\n", To: ""}}}
	f := newFencing(t, fault.Program(t, "-tags", "failpoint"))
	const most = 20
	for round := 1; round <= most; round++ {
		f.run(t, 1)
		if survivors := f.survivors(t); len(survivors) > 0 {
			t.Logf("caught after %d rounds: %s", round, survivors[0])
			return
		}
	}
	t.Errorf("%s: not caught in %d rounds", fault.Name, most)
}

// fencing is three nodes that issue and revoke.
type fencing struct {
	*world
	store *pgx.Conn

	mu       sync.Mutex
	answered map[string]time.Time // by user name
	withheld int

	fences  []fence
	revoked int64
	longest time.Duration // that a revocation took
}

// fence is one revocation of all.
type fence struct {
	seq    int64
	done   time.Time       // when it was reported done
	alive  map[string]bool // accounts at the source then
	undead []string        // leases of before it that lived then
}

func newFencing(t *testing.T, program string) *fencing {
	t.Helper()
	server := pgtest.Start(t, 17)
	p := place{store: server, source: pgtest.Start(t, 17, pgtest.WithSetting("log_statement", "ddl"))}
	db := server.CreateDB(t)
	f := &fencing{answered: map[string]time.Time{}}
	f.world = newWorldOn(t, vaulttest.StartNodes(t, program, 3, server.SuperURL(db)), p.source, members(), "20s")
	f.store = server.Connect(t, pgtest.Superuser, server.SuperPassword(), db)
	return f
}

// run goes through rounds, with issuers at work.
func (f *fencing) run(t *testing.T, rounds int) {
	t.Helper()
	f.holdUp(t)
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for i := range issuers {
		c := f.callerOf(i).Admin(t)
		working.Go(func() {
			for ctx.Err() == nil {
				if err := f.ask(c); err != nil {
					t.Errorf("a caller was answered %v", err)
					return
				}
			}
		})
	}
	for round := range rounds {
		f.awaitAnswers(t)
		f.revoke(t, f.nodes[round%2])
	}
	stop()
	working.Wait()
	f.revoke(t, f.nodes[0]) // what came after the last
}

// holdUp delays every issuance at both moments: those of the third node so long
// before their intents are committed that a revocation that does not wait for
// them is done meanwhile. It has one caller only, since what it has under way
// besides would keep the revocation from being done.
func (f *fencing) holdUp(t *testing.T) {
	t.Helper()
	slow := "1s"
	if full() {
		slow = "3s"
	}
	for i, within := range []string{"10ms", "10ms", slow} {
		f.nodes[i].Arm(t, "intent-open sleep "+within, "F2 sleep 30ms")
	}
}

// callerOf is the node that a caller asks.
func (f *fencing) callerOf(issuer int) *vaulttest.Server {
	if issuer == 0 {
		return f.nodes[2]
	}
	return f.nodes[issuer%2]
}

// ask issues one credential; that a revocation withholds it is an answer, too.
func (f *fencing) ask(c *client.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	made, err := f.issue(ctx, c)
	f.mu.Lock()
	defer f.mu.Unlock()
	var refused *client.Error
	switch {
	case err == nil:
		f.answered[made.Data["username"]] = time.Now()
	case errors.As(err, &refused) && refused.Code == client.LeaseRevoked:
		f.withheld++
	default:
		return err
	}
	return nil
}

// awaitAnswers waits until enough is there to be revoked.
func (f *fencing) awaitAnswers(t *testing.T) {
	t.Helper()
	count := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.answered)
	}
	want := count() + answersBefore
	eventually(t, func() string { return "callers are answered" }, func() bool { return count() >= want || t.Failed() })
}

// revoke ends all that there is, and looks at once at what is left.
func (f *fencing) revoke(t *testing.T, node *vaulttest.Server) {
	t.Helper()
	begun := time.Now()
	result, err := node.Admin(t).RevokePrefix(t.Context(), "db/"+f.role, patience)
	if err != nil || result.Pending != 0 {
		t.Fatalf("revoke all: %+v, %v", result, err)
	}
	now := fence{done: time.Now(), alive: map[string]bool{}}
	for name := range f.accounts(t) {
		now.alive[name] = true
	}
	if err := f.store.QueryRow(t.Context(), "SELECT max(seq) FROM fences").Scan(&now.seq); err != nil {
		t.Fatal(err)
	}
	rows, err := f.store.Query(t.Context(), "SELECT username FROM leases WHERE fence_seq < $1 AND status <> 'revoked'", now.seq)
	if err == nil {
		now.undead, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		t.Fatal(err)
	}
	f.fences = append(f.fences, now)
	f.longest = max(f.longest, now.done.Sub(begun))
	f.revoked += result.Matched
}

// survivors are what a revocation should have ended and did not, each with how
// it is known.
func (f *fencing) survivors(t *testing.T) (all []string) {
	t.Helper()
	created := f.created(t)
	rows, err := f.store.Query(t.Context(), "SELECT username, fence_seq FROM leases")
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var seq int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &seq}, func() error {
		for k, fence := range f.fences {
			if seq >= fence.seq {
				continue // asked for after it
			}
			say := func(what string) {
				all = append(all, fmt.Sprintf("%s was asked for before revocation %d, and %s after that was done", name, k+1, what))
			}
			if fence.alive[name] {
				say("its account lived")
			}
			if at := created[name]; at.After(fence.done) {
				say("its account was made " + at.Sub(fence.done).String())
			}
			if at := f.answered[name]; at.After(fence.done) {
				say("it was answered " + at.Sub(fence.done).String())
			}
			return nil // later ones find it dead
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for k, fence := range f.fences {
		for _, name := range fence.undead {
			all = append(all, fmt.Sprintf("%s was asked for before revocation %d, and its lease lived after that was done", name, k+1))
		}
	}
	return all
}

// creation finds the names of accounts in a statement that makes them.
var creation = regexp.MustCompile(`CREATE ROLE "(v_[a-z0-9_]+)"`)

// created is when the source was last asked to make each account, by its log.
func (f *fencing) created(t *testing.T) map[string]time.Time {
	t.Helper()
	created := map[string]time.Time{}
	for entry := range strings.SplitSeq(strings.ReplaceAll(f.source.Log(t), "\n\t", " "), "\n") {
		if len(entry) < len(time.DateTime)+4 {
			continue
		}
		at, err := time.Parse("2006-01-02 15:04:05.000", entry[:len(time.DateTime)+4])
		if err != nil {
			continue
		}
		for _, name := range creation.FindAllStringSubmatch(entry, -1) {
			created[name[1]] = at
		}
	}
	return created
}
