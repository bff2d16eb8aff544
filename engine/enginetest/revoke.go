package enginetest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaivault/scaivault/engine"
)

func testRevokeTwice(b *bench) {
	e := b.open()
	c := b.issue(e)
	b.revoke(e, c.recipe)
	b.revoke(e, c.recipe)
	b.revoke(e, c.Plan.Recipe) // the recipe of before the issue must do, too
	b.dead(c.Plan)

	d := b.issue(e)
	b.revoke(e, d.Plan.Recipe)
	b.dead(d.Plan)
}

func testRevokeUnknown(b *bench) {
	e := b.open()
	b.revoke(e, b.plan(e).Recipe)
}

func testRevokeEndsSessions(b *bench) {
	e := b.open()
	c := b.issue(e)
	sessions := map[string]Session{}
	for _, name := range slices.Sorted(maps.Keys(b.target.Sessions)) {
		sessions[name] = b.target.Sessions[name](b.T, c.Data)
	}
	b.revoke(e, c.recipe)
	for name, s := range sessions {
		ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
		if s.Works(ctx) {
			b.Errorf("a session goes on after revocation: %s", name)
		}
		cancel()
		s.Close()
	}
	b.dead(c.Plan)
}

// testRevokeBeatsReconnecting revokes while clients of the credential log in
// over and over. Once revocation is done, none is in, and none comes in.
func testRevokeBeatsReconnecting(b *bench) {
	e := b.open()
	c := b.issue(e)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []Session
	var revoked atomic.Bool
	after := 0 // logins that began after the revocation, and succeeded
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				late := revoked.Load()
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				s, err := b.target.Login(ctx, c.Data)
				cancel()
				if err == nil {
					mu.Lock()
					open = append(open, s)
					if late {
						after++
					}
					full := len(open) > 20
					mu.Unlock()
					if full {
						time.Sleep(5 * time.Millisecond)
					}
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	b.revoke(e, c.recipe)
	revoked.Store(true)
	time.Sleep(50 * time.Millisecond)
	close(stop)
	wg.Wait()
	if after > 0 {
		b.Errorf("%d logins succeeded after revocation", after)
	}
	for _, s := range open {
		ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
		if s.Works(ctx) {
			b.Error("a session goes on after revocation")
		}
		cancel()
		s.Close()
	}
	b.dead(c.Plan)
}

// testRevokeBatch mixes what a batch can meet; each has its own result.
func testRevokeBatch(b *bench) {
	e := b.open()
	batch, ok := e.(engine.BatchRevoker)
	if !ok {
		b.Skip("the engine revokes one by one")
	}
	plain, gone, busy, unknown, stranger := b.issue(e), b.issue(e), b.issue(e), b.plan(e), b.plan(e)
	b.revoke(e, gone.recipe)
	b.target.Plant(b.T, stranger.Username)
	for _, open := range b.target.Sessions {
		s := open(b.T, busy.Data)
		defer s.Close()
		break
	}
	results := batch.RevokeBatch(b.Context(), []engine.Recipe{
		plain.recipe, gone.recipe, engine.Recipe(`{"nonsense": true}`), busy.recipe, unknown.Recipe, stranger.Recipe, plain.recipe,
	})
	for i, wantErr := range []bool{false, false, true, false, false, false, false} {
		if (results[i].Err != nil) != wantErr {
			b.Errorf("result %d of the batch: %v", i, results[i].Err)
		}
	}
	for _, c := range []issued{plain, gone, busy} {
		b.dead(c.Plan)
	}
	if !b.target.Exists(b.T, stranger.Username) {
		b.Error("a stranger's account was removed")
	}

	const many = 150
	recipes := make([]engine.Recipe, many)
	names := make([]string, many)
	for i := range many {
		c := b.issue(e)
		recipes[i], names[i] = c.recipe, c.Username
	}
	for i, r := range batch.RevokeBatch(b.Context(), recipes) {
		if r.Err != nil || r.Residue != "" {
			b.Errorf("result %d of a large batch: %v %s", i, r.Err, r.Residue)
		}
	}
	for _, name := range names {
		if b.target.Exists(b.T, name) {
			b.Errorf("%s survived a batch", name)
		}
	}
}

func testLookup(b *bench) {
	e := b.open()
	p := b.plan(e)
	if state := b.lookup(e, p.Recipe); state != engine.Absent {
		b.Errorf("before the issue: %d, not Absent", state)
	}
	r, err := e.Issue(b.Context(), p)
	if err != nil {
		b.Fatalf("issue: %v", err)
	}
	presence, err := e.Lookup(b.Context(), p.Recipe)
	if err != nil || presence.State != engine.Usable {
		b.Fatalf("after the issue: %d, %v", presence.State, err)
	}
	if !sameJSON(presence.Recipe, r) {
		b.Errorf("the recipe is completed to %s by a look-up, to %s by the issue", presence.Recipe, r)
	}
	b.revoke(e, r)
	if state := b.lookup(e, r); state != engine.Absent {
		b.Errorf("after revocation: %d, not Absent", state)
	}
}

func sameJSON(a, b engine.Recipe) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, _ := json.Marshal(x) //nolint:errchkjson // decoded from JSON
	q, _ := json.Marshal(y) //nolint:errchkjson // decoded from JSON
	return string(p) == string(q)
}

func testWrongServer(b *bench) {
	if b.target.Elsewhere == nil {
		b.Skip("there is no other source")
	}
	e := b.open()
	c := b.issue(e)
	other := b.target.Elsewhere(b.T)
	b.Cleanup(other.Close)
	_, err := other.Revoke(b.Context(), c.recipe)
	b.wantKind("revoke at another server", err, engine.WrongServer)
	_, err = other.Lookup(b.Context(), c.recipe)
	b.wantKind("look up at another server", err, engine.WrongServer)
	if r, ok := other.(engine.Renewer); ok {
		b.wantKind("renew at another server", r.Renew(b.Context(), c.recipe, time.Now().Add(time.Hour)), engine.WrongServer)
	}
	b.works(c.Data)
}

func testRenew(b *bench) {
	e := b.open()
	r, ok := e.(engine.Renewer)
	if !ok || b.fixed() {
		b.Skip("the source enforces no end that could be moved")
	}
	c := b.issue(e)
	for _, until := range []time.Time{c.ExpiresAt.Add(time.Hour), c.ExpiresAt.Add(-30 * time.Minute)} {
		for range 2 {
			if err := r.Renew(b.Context(), c.recipe, until); err != nil {
				b.Fatalf("renew: %v", err)
			}
		}
		if end := b.target.End(b.T, c.Username); end.Sub(until).Abs() > time.Second {
			b.Errorf("the source ends the credential at %s, not %s", end, until)
		}
		b.works(c.Data)
	}
	b.revoke(e, c.recipe)
	if err := r.Renew(b.Context(), c.recipe, time.Now().Add(time.Hour)); err == nil {
		b.Error("a revoked credential was renewed")
	}
	b.dead(c.Plan)
}

func testList(b *bench) {
	e := b.open()
	l, ok := e.(engine.Lister)
	if !ok {
		b.Skip("the engine lists nothing")
	}
	c, p := b.issue(e), b.plan(e)
	b.target.Plant(b.T, p.Username)    // our checksum, but not ours
	b.target.Plant(b.T, "v_somebody_") // nothing of ours
	accounts, err := l.List(b.Context())
	if err != nil {
		b.Fatalf("list: %v", err)
	}
	var recipe engine.Recipe
	for _, a := range accounts {
		switch a.Username {
		case c.Username:
			recipe = a.Recipe
		case p.Username, "v_somebody_":
			b.Errorf("a stranger's account is listed: %s", a.Username)
		}
	}
	if recipe == nil {
		b.Fatal("an issued account is not listed")
	}
	b.revoke(e, recipe)
	b.dead(c.Plan)
}

// testClock wants the source's clock to go on: it is evidence of how much time passed.
func testClock(b *bench) {
	e := b.open()
	c, ok := e.(engine.Clock)
	if !ok {
		b.Skip("the source tells no time")
	}
	first, err := c.Now(b.Context())
	if err != nil {
		b.Fatalf("ask what time it is: %v", err)
	}
	second, err := c.Now(b.Context())
	if err != nil || second.Before(first) || first.IsZero() {
		b.Errorf("after %s comes %s, %v", first, second, err)
	}
}
