package postgresql_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/proxy"
)

// TestNothingSecretInTheLog runs on a server that logs whatever can be logged.
func TestNothingSecretInTheLog(t *testing.T) {
	t.Parallel()
	for _, w := range []way{createRole, definer} {
		for form, document := range map[string]string{"privileges": readItems, "statements": statements} {
			if w == definer && form == "statements" {
				continue // creation statements need CREATEROLE
			}
			t.Run(string(w)+"/"+form, func(t *testing.T) {
				t.Parallel()
				server := pgtest.Start(t, 17, pgtest.WithSetting("log_statement", "all"), pgtest.WithSetting("log_min_error_statement", "debug5"),
					pgtest.WithSetting("log_min_messages", "debug1"), pgtest.WithSetting("log_connections", "on"), pgtest.WithSetting("log_duration", "on"),
					pgtest.WithSetting("log_parameter_max_length_on_error", "-1"))
				s := newSource(t, server, w)
				target := s.target(t, document)
				target.Log = func(t *testing.T) string { return server.Log(t) }
				target.Say = func(t *testing.T, text string) { server.Exec(t, "SELECT '"+text+"'") }
				enginetest.RunCase(t, "SecretsStayOutOfTheLog", target)
			})
		}
	}
}

// TestFrozenServerExecutesLate is the experiment that needs the fence: the
// server is frozen, the request times out, its sender closes everything and
// goes, and the server wakes up after the deadline with the request in its
// socket.
func TestFrozenServerExecutesLate(t *testing.T) {
	t.Parallel()
	for _, form := range []string{readItems, statements} {
		server := pgtest.Start(t, 15)
		s := newSource(t, server, createRole)
		// The connection that cancels is refused, so that only the fence helps.
		var mu sync.Mutex
		var frozen bool
		options := s.options(map[string]any{"operation_timeout": "30s"})
		options.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if frozen {
				return nil, errors.New("no new connections")
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}
		e := openEngine(t, options)
		role := parseRole(t, form)
		revoke(t, e, issue(t, e, role).recipe)

		p := plan(t, e, role)
		p.Deadline = time.Now().Add(500 * time.Millisecond)
		mu.Lock()
		frozen = true
		mu.Unlock()
		server.Freeze(t)
		_, err := e.Issue(t.Context(), p)
		wantKind(t, err, engine.Uncertain)
		e.Close()
		time.Sleep(time.Second)
		server.Thaw(t)
		mu.Lock()
		frozen = false
		mu.Unlock()

		next := openEngine(t, withEpoch(options, 2))
		if err := next.Settle(t.Context(), options.Node, []engine.Recipe{p.Recipe}); err != nil {
			t.Fatalf("settle: %v", err)
		}
		if n := s.count(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND application_name LIKE '%/1'", s.root); n != 0 {
			t.Errorf("%d sessions of the earlier epoch are left", n)
		}
		time.Sleep(200 * time.Millisecond)
		if s.roles(t, p.Username) != 0 {
			t.Error("the server made the account after the deadline")
		}
	}
}

func withEpoch(o engine.Options, epoch int64) engine.Options {
	o.Epoch = epoch
	return o
}

func wantKind(t *testing.T, err error, kind engine.Kind) {
	t.Helper()
	var known *engine.Error
	if !errors.As(err, &known) || known.Kind != kind {
		t.Fatalf("kind %d is wanted: %v", kind, err)
	}
}

// TestSettleEndsOnlyWhatIsLate: an issuance of another lease goes on.
func TestSettleEndsOnlyWhatIsLate(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), createRole)
	e := s.open(t, nil)
	role := parseRole(t, `{"creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'", "SELECT pg_sleep(1.5)"]}`)
	healthy, late := plan(t, e, role), plan(t, e, role)
	errs := make(chan error, 2)
	go func() { _, err := e.Issue(t.Context(), healthy); errs <- err }()
	go func() {
		_, err := e.Issue(t.Context(), late)
		errs <- fmt.Errorf("late: %w", err)
	}()
	for s.count(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND wait_event = 'PgSleep'", s.root) < 2 {
		time.Sleep(5 * time.Millisecond)
	}
	if err := e.Settle(t.Context(), "node-a", []engine.Recipe{late.Recipe}); err != nil {
		t.Fatalf("settle: %v", err)
	}
	for range 2 {
		err := <-errs
		if isLate := err != nil && strings.HasPrefix(err.Error(), "late:"); isLate {
			wantKind(t, err, engine.Uncertain)
		} else if err != nil {
			t.Errorf("an issuance of another lease was ended: %v", err)
		}
	}
	if s.roles(t, healthy.Username) != 1 || s.roles(t, late.Username) != 0 {
		t.Error("the wrong account was made")
	}
}

// TestAnotherServer has the engine's address lead to another server.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), createRole)
	e := s.open(t, nil)
	c := issue(t, e, parseRole(t, readItems))

	rebuilt := pgtest.Start(t, 15, pgtest.WithOwnIdentity())
	other := newSource(t, rebuilt, createRole)
	f := other.open(t, nil)
	if e.SourceID() == f.SourceID() || e.SourceID() == "" {
		t.Fatalf("identities: %s, %s", e.SourceID(), f.SourceID())
	}
	_, err := f.Revoke(t.Context(), c.recipe)
	wantKind(t, err, engine.WrongServer)

	// An address that moves under an open engine: what is checked is the
	// server at the other end, not what the engine believes.
	o := s.options(nil)
	o.Root["username"], o.Root["password"] = "mover", "mover-password"
	for _, server := range []*pgtest.Server{s.server, rebuilt} {
		server.Exec(t, "CREATE ROLE mover LOGIN CREATEROLE PASSWORD 'mover-password'")
	}
	rebuilt.Exec(t, "CREATE DATABASE "+s.db)
	address := s.addr
	var mu sync.Mutex
	o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	moving := openEngine(t, o)
	p := plan(t, moving, parseRole(t, `{"creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'"]}`))
	mu.Lock()
	address = rebuilt.Addr()
	mu.Unlock()
	s.server.Exec(t, "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'mover'")
	_, err = moving.Issue(t.Context(), p)
	wantKind(t, err, engine.WrongServer)
	_, err = moving.Revoke(t.Context(), p.Recipe)
	wantKind(t, err, engine.WrongServer)
	_, err = moving.Lookup(t.Context(), p.Recipe)
	wantKind(t, err, engine.WrongServer)
	if h := moving.Check(t.Context()); h.Status != "misconfigured" {
		t.Errorf("health: %+v", h)
	}
	s.server.Exec(t, "DROP ROLE mover")
}

// TestRevocationKeepsAConnection: callers who wait at the source for a lock
// hold every connection but one.
func TestRevocationKeepsAConnection(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), createRole)
	e := s.open(t, map[string]any{"max_open_connections": 2})
	c := issue(t, e, parseRole(t, readItems))
	slow := parseRole(t, `{"creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'", "SELECT pg_sleep(2)"]}`)
	var wg sync.WaitGroup
	for range 3 {
		p := plan(t, e, slow)
		wg.Go(func() { _, _ = e.Issue(t.Context(), p) }) // only in the way
	}
	for s.count(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'", s.root) == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	start := time.Now()
	revoke(t, e, c.recipe)
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("revocation waited for issuing: %s", took)
	}
	wg.Wait()
}

// TestLateRenewal: a renewal whose message was on its way for longer than it may take changes nothing. Else
// it takes back what a later one has set, and the credential dies before its lease.
func TestLateRenewal(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 17), createRole)
	e := s.open(t, nil)
	made := issue(t, e, parseRole(t, readItems))
	later := time.Now().Add(time.Hour)
	if err := e.Renew(t.Context(), made.recipe, later); err != nil {
		t.Fatal(err)
	}

	const limit = time.Second
	var over atomic.Bool
	dial := proxy.Late("VALID UNTIL", limit+time.Second)
	o := s.options(nil)
	o.Node = "slow"
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if over.Load() {
			return nil, errors.New("no new connections, which could cancel: only the fence helps")
		}
		return dial(ctx, network, address)
	}
	slow := openEngine(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := slow.Lookup(t.Context(), made.recipe); err != nil { // a connection is there
		t.Fatal(err)
	}
	over.Store(true)
	if err := slow.Renew(ctx, made.recipe, time.Now().Add(time.Minute)); err == nil {
		t.Error("what was not done in time is answered as done")
	}
	slow.Close()
	const left = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND application_name LIKE '%slow%'"
	for s.count(t, left, s.root) > 0 { // the session that was given up ends behind the message
		time.Sleep(10 * time.Millisecond)
	}
	if n := s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname = $1 AND rolvaliduntil > now() + interval '30 minutes'", made.username); n != 1 {
		t.Error("a late renewal has taken back a later one")
	}
	revoke(t, e, made.recipe)
}
