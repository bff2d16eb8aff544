package enginetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
)

func testIssue(b *bench) {
	e := b.open()
	c := b.issue(e)
	b.works(c.Data)
	if !b.target.Exists(b.T, c.Username) {
		b.Error("the account has not the planned name")
	}
	if b.target.End != nil {
		if end := b.target.End(b.T, c.Username); end.Sub(c.ExpiresAt).Abs() > time.Second {
			b.Errorf("the source ends the credential at %s, not %s", end, c.ExpiresAt)
		}
	}
	b.revoke(e, c.recipe)
	b.dead(c.Plan)
}

func testNoSecretInRecipe(b *bench) {
	e := b.open()
	c := b.issue(e)
	for name, value := range b.secrets(c.Plan) {
		if strings.Contains(string(c.recipe), value.Reveal()) || strings.Contains(string(c.Plan.Recipe), value.Reveal()) {
			b.Errorf("the recipe holds the credential's %s", name)
		}
	}
}

func testNameTaken(b *bench) {
	e := b.open()
	p := b.plan(e)
	b.target.Plant(b.T, p.Username)

	_, err := e.Issue(b.Context(), p)
	b.wantKind("issue over a stranger's account", err, engine.NameTaken)
	if state := b.lookup(e, p.Recipe); state != engine.Foreign {
		b.Errorf("a stranger's account is looked up as %d, not Foreign", state)
	}
	b.revoke(e, p.Recipe)
	if !b.target.Exists(b.T, p.Username) {
		b.Error("a stranger's account was removed")
	}
}

func testDeadlinePassed(b *bench) {
	e := b.open()
	p := b.plan(e)
	p.Deadline = time.Now().Add(-time.Second)
	if _, err := e.Issue(b.Context(), p); err == nil {
		b.Error("issued after the deadline")
	}
	b.dead(p)
}

// testLateExecution holds a request back until its deadline has passed and its
// sender has gone, and delivers it then.
func testLateExecution(b *bench) {
	e, proxy := b.openBehindProxy()
	b.revoke(e, b.issue(e).recipe) // connections and whatever the role needs are there
	p := b.plan(e)
	p.Deadline = time.Now().Add(300 * time.Millisecond)
	proxy.Hold()
	failed := make(chan error, 1)
	go func() {
		_, err := e.Issue(b.Context(), p)
		failed <- err
	}()
	for proxy.Held() == 0 && time.Now().Before(p.Deadline) {
		time.Sleep(time.Millisecond)
	}
	err := <-failed
	if err == nil {
		b.Fatal("issued without an answer from the source")
	}
	time.Sleep(time.Until(p.Deadline) + 50*time.Millisecond)
	proxy.Pass()

	b.settle(e, p.Recipe)
	if state := b.lookup(e, p.Recipe); state != engine.Absent {
		b.Errorf("after settling the account is looked up as %d, not Absent", state)
	}
	b.dead(p)
}

// testLostAnswer lets the source do what the engine never hears of.
func testLostAnswer(b *bench) {
	e, proxy := b.openBehindProxy()
	b.revoke(e, b.issue(e).recipe)
	p := b.plan(e)
	proxy.LoseAnswers()
	_, err := e.Issue(b.Context(), p)
	b.wantKind("issue without an answer", err, engine.Uncertain, engine.Unreachable)
	proxy.Pass()

	b.settle(e, p.Recipe)
	presence, err := e.Lookup(b.Context(), p.Recipe)
	if err != nil {
		b.Fatalf("look up: %v", err)
	}
	if exists := b.target.Exists(b.T, p.Username); exists != (presence.State == engine.Usable || presence.State == engine.Unusable) {
		b.Errorf("the account exists: %t, and is looked up as %d", exists, presence.State)
	}
	recipe := p.Recipe
	switch presence.State {
	case engine.Usable:
		b.works(p.Data)
		recipe = presence.Recipe
	case engine.Unusable:
		if _, err := b.login(p.Data); err == nil {
			b.Error("a credential that is looked up as unusable logs in")
		}
	}
	b.revoke(e, recipe)
	b.dead(p)
}

func testPrepareTwice(b *bench) {
	e := b.open()
	preparer, ok := e.(engine.RolePreparer)
	if !ok {
		b.Skip("the engine prepares no roles")
	}
	for range 2 {
		if _, err := preparer.PrepareRole(b.Context(), "suite", b.target.Role); err != nil {
			b.Fatalf("prepare a role: %v", err)
		}
	}
	b.works(b.issue(e).Data)
}

// testConcurrency makes and kills from many callers at once.
func testConcurrency(b *bench) {
	const callers, each = 8, 5
	e := b.open()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				p := b.plan(e)
				r, err := e.Issue(b.Context(), p)
				if err != nil {
					b.Errorf("issue: %v", err)
					return
				}
				if s, err := b.login(p.Data); err != nil || !s.Works(b.Context()) {
					b.Errorf("a credential does not work: %v", err)
				}
				if _, err := e.Revoke(b.Context(), r); err != nil {
					b.Errorf("revoke: %v", err)
				}
				if b.target.Exists(b.T, p.Username) {
					b.Error("the account of a dead credential exists")
				}
			}
		})
	}
	wg.Wait()
}

// testSecretsStayOutOfTheLog looks for the credential in the source's own log,
// and for a text that must be there, to know that it looked at a log.
func testSecretsStayOutOfTheLog(b *bench) {
	if b.target.Log == nil {
		b.Skip("the source has no log")
	}
	e := b.open()
	c := b.issue(e)
	b.works(c.Data)
	if r, ok := e.(engine.Renewer); ok && !b.fixed() {
		if err := r.Renew(b.Context(), c.recipe, time.Now().Add(2*time.Hour)); err != nil {
			b.Fatalf("renew: %v", err)
		}
	}
	b.revoke(e, c.recipe)
	secrets := slices.Collect(maps.Values(b.secrets(c.Plan)))
	_, fixed := b.target.Exceptions["RotateRoot"]
	if r, ok := e.(engine.RootRotator); ok && !fixed {
		candidate, err := r.PlanRoot(b.Context())
		if err != nil {
			b.Fatalf("plan root: %v", err)
		}
		if err := r.SetRoot(b.Context(), candidate); err != nil {
			b.Fatalf("set root: %v", err)
		}
		secrets = append(secrets, candidate["password"], candidate["secret_access_key"])
	}
	const control = "control statement of the log test"
	b.target.Say(b.T, control)
	log := b.target.Log(b.T)
	if !strings.Contains(log, control) || !strings.Contains(log, c.Username) {
		b.Fatal("the source's log does not hold what it must: this test looks at the wrong place")
	}
	for _, s := range secrets {
		if s != "" && strings.Contains(log, s.Reveal()) {
			b.Error("a secret is in the source's log")
		}
	}
}

// wantKind fails the test unless err is an *engine.Error of one of the kinds.
func (b *bench) wantKind(attempt string, err error, kinds ...engine.Kind) {
	b.Helper()
	var known *engine.Error
	if !errors.As(err, &known) {
		b.Fatalf("%s: the error is no *engine.Error: %v", attempt, err)
	}
	for _, k := range kinds {
		if known.Kind == k {
			return
		}
	}
	b.Errorf("%s: kind %d is none of %v: %v", attempt, known.Kind, kinds, err)
}

// within runs f with a time limit, twice that of the engine behind a proxy, and
// fails the test if f does not keep it.
func (b *bench) within(attempt string, f func(ctx context.Context)) {
	const limit = 4 * time.Second
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	start := time.Now()
	f(ctx)
	if took := time.Since(start); took > limit+2*time.Second {
		b.Errorf("%s took %s", attempt, took)
	}
}
