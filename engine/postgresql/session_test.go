package postgresql_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestLoginUnderWay: a login that has passed its checks is invisible until it
// is complete, and completes even after its account was dropped. The late look
// ends it.
func TestLoginUnderWay(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		c := issue(t, e, parseRole(t, readItems))
		cfg, err := pgx.ParseConfig(s.server.URL(c.username, c.password, s.db))
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["post_auth_delay"] = "2"
		in := make(chan *pgx.Conn, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			conn, err := pgx.ConnectConfig(ctx, cfg)
			if err != nil {
				close(in)
				return
			}
			in <- conn
		}()
		time.Sleep(time.Second) // it is within its delay, where nothing shows it
		revoke(t, e, c.recipe)
		if s.roles(t, c.username) != 0 {
			t.Fatal("the account was not dropped")
		}
		conn, ok := <-in
		if !ok {
			t.Fatal("the login did not get through, so nothing was tried")
		}
		defer session{conn}.Close()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
				return
			}
		}
		t.Error("the session outlives its account")
	})
}

// TestNamesAtTheLimit: PostgreSQL cuts names at 63 bytes with a mere notice, so
// that two credentials would meet in one account.
func TestNamesAtTheLimit(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), definer)
	for name, extra := range map[string]map[string]any{
		"usual":    nil,
		"template": {"username_template": "v_app-{{role}}.{{random:20}}"},
	} {
		e := s.open(t, extra)
		seen := map[string]bool{}
		for _, length := range []int{1, 40, 43, 44, 45, 62, 63} {
			for range 2 {
				p, err := e.Plan(t.Context(), engine.PlanRequest{
					LeaseID: ident.New(ident.Lease), RoleName: strings.Repeat("r", length), Role: parseRole(t, readItems), ExpiresAt: time.Now().Add(time.Hour),
				})
				if err != nil {
					t.Fatal(err)
				}
				p.Deadline = time.Now().Add(10 * time.Second)
				if len(p.Username) > 63 || seen[p.Username] {
					t.Errorf("%s: name %q", name, p.Username)
				}
				seen[p.Username] = true
				r, err := e.Issue(t.Context(), p)
				if err != nil {
					t.Fatalf("%s, role of %d letters: %v", name, length, err)
				}
				if s.roles(t, p.Username) != 1 {
					t.Errorf("%s: the account has another name than %q", name, p.Username)
				}
				revoke(t, e, r)
			}
		}
	}
}

// TestCyclesLeaveNothing: accounts come and go, and the catalogs and access
// lists are as they were.
func TestCyclesLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, form := range []string{readItems, statements} {
		s := newSource(t, pgtest.Start(t, 17), createRole)
		e := s.open(t, map[string]any{"scram_iterations": 1})
		role := parseRole(t, form)
		state := func() [4]int {
			return [4]int{
				s.count(t, "SELECT count(*) FROM pg_roles"), s.count(t, "SELECT count(*) FROM pg_auth_members"),
				s.count(t, "SELECT count(*) FROM pg_shdepend"), s.count(t, "SELECT count(*) FROM pg_shdescription"),
			}
		}
		revoke(t, e, issue(t, e, role).recipe)
		before := state()
		for range 20 {
			var recipes []engine.Recipe
			for range 10 {
				recipes = append(recipes, issue(t, e, role).recipe)
			}
			for _, r := range e.RevokeBatch(t.Context(), recipes) {
				if r.Err != nil || r.Residue != "" {
					t.Errorf("revoke: %v %s", r.Err, r.Residue)
				}
			}
		}
		if after := state(); after != before {
			t.Errorf("roles, memberships, dependencies, comments: %v before, %v after", before, after)
		}
	}
}

// TestFailedStatementsKeepNoLock: a lock of the session does not go with the transaction, and here
// it would be the one that every GRANT waits for.
func TestFailedStatementsKeepNoLock(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), createRole)
	s.server.ExecIn(t, s.db, "CREATE TABLE flag (n int); INSERT INTO flag VALUES (1); GRANT ALL ON flag TO "+s.root)
	e := s.open(t, nil)
	fails := parseRole(t, `{"creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'",
		"SELECT pg_advisory_lock(4711)", "SELECT 1/n FROM flag"]}`)
	s.server.ExecIn(t, s.db, "UPDATE flag SET n = 0")
	if _, err := e.Issue(t.Context(), plan(t, e, fails)); err == nil {
		t.Fatal("issued by a statement that fails")
	}
	var held int
	if err := s.server.Superuser(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711").Scan(&held); err != nil || held != 0 {
		t.Errorf("%d locks are held after the failure, %v", held, err)
	}
}

// said keeps what is sent over its connections.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	return sayer{conn, s}, err
}

type sayer struct {
	net.Conn
	said *said
}

func (c sayer) Write(b []byte) (int, error) {
	c.said.mu.Lock()
	c.said.text.Write(b)
	c.said.mu.Unlock()
	return c.Conn.Write(b)
}

// TestSessionsEndedByRight: where root has pg_signal_backend, it ends sessions by that, also on a
// connection that acts as a maker. Without it, or when it lost it, it does so as a member of the account.
func TestSessionsEndedByRight(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		words := &said{}
		o := s.options(nil)
		o.Dial = words.dial
		e := openEngine(t, o)
		kill := func(e *postgresql.Engine) {
			t.Helper()
			c := issue(t, e, parseRole(t, readItems))
			open := session{s.server.Connect(t, c.username, c.password, s.db)}
			defer open.Close()
			revoke(t, e, c.recipe)
			if open.Works(t.Context()) || s.roles(t, c.username) != 0 {
				t.Error("the session or the account outlives its revocation")
			}
		}
		kill(e)
		if text := words.text.String(); strings.Contains(text, "TO CURRENT_USER") || strings.Contains(text, "lend_account(") {
			t.Error("root was made a member of the account")
		}
		s.server.Exec(t, "REVOKE pg_signal_backend FROM "+s.root)
		kill(e)
		kill(s.open(t, nil))
	}, setup{16, makers})
}
