package mysql_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/mysqltest"
	"github.com/scaivault/scaivault/test/proxy"
)

// A server that was frozen while it was asked executes what it finds when it goes
// on. What is past its deadline then is refused; what it had begun is ended.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSource(t, mysqltest.Start(t, kind))
			e := s.open(t, fields{"operation_timeout": "10s"})
			revoke(t, e, issue(t, e, s.reader(t)).recipe) // connections and the group are there
			for _, wait := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond} {
				p := plan(t, e, s.reader(t))
				p.Deadline = time.Now().Add(500 * time.Millisecond)
				failed := make(chan error, 1)
				if wait == 0 {
					s.server.Freeze(t)
				}
				go func() {
					_, err := e.Issue(context.Background(), p)
					failed <- err
				}()
				if wait > 0 {
					time.Sleep(wait) // somewhere in the middle
					s.server.Freeze(t)
				}
				err := <-failed
				time.Sleep(time.Until(p.Deadline))
				s.server.Thaw(t)
				if err == nil {
					revoke(t, e, p.Recipe)
					continue
				}
				if err := e.Settle(t.Context(), "node-1", []engine.Recipe{p.Recipe}); err != nil {
					t.Fatalf("settle: %v", err)
				}
				found, err := e.Lookup(t.Context(), p.Recipe)
				if err != nil {
					t.Fatalf("look up: %v", err)
				}
				if exists := s.server.Exists(t, p.Username); exists != (found.State != engine.Absent) {
					t.Errorf("frozen after %s: the account exists: %t, and was looked up as %d", wait, exists, found.State)
				}
				revoke(t, e, p.Recipe)
				s.mustBeGone(t, credential{p, p.Recipe})
			}
		})
	}
}

// What waits for a lock when its sender is gone is ended by Settle, and nothing else
// of root is.
func TestSettleEndsWhatIsBusyWithTheName(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		p := plan(t, e, s.reader(t))
		busy := func(sql, shown string) {
			opened, err := s.server.Login(t.Context(), s.root, rootPassword, "")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(opened.Close)
			go func() {
				rows, err := opened.QueryContext(t.Context(), sql)
				if err == nil {
					rows.Close()
				}
			}()
			eventually(t, "the session is busy", func() bool { return s.busy(t, shown) })
		}
		busy("SELECT SLEEP(600), '"+p.Username+"'", p.Username)
		busy("SELECT SLEEP(600), 'for another lease of "+s.root+"'", "for another lease of "+s.root)
		if err := e.Settle(t.Context(), "another-node", []engine.Recipe{p.Recipe}); err != nil {
			t.Fatalf("settle: %v", err)
		}
		if s.busy(t, p.Username) {
			t.Error("a session is still busy with the name")
		}
		if !s.busy(t, "for another lease of "+s.root) {
			t.Error("a session that works for another lease was ended")
		}
	})
}

// busy tells whether a session of root executes something that holds the text.
func (s *source) busy(t testing.TB, text string) bool {
	t.Helper()
	for _, row := range s.server.Query(t, "SELECT COALESCE(INFO, '') FROM information_schema.PROCESSLIST WHERE USER = '"+s.root+"'") {
		if strings.Contains(row[0], text) {
			return true
		}
	}
	return false
}

// A renewal whose message was on its way for longer than it may take changes nothing. Else it takes back what
// a later one has set, and the credential dies before its lease.
func TestLateRenewal(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		s.server.Exec(t, "SET GLOBAL event_scheduler = ON", "GRANT EVENT ON "+s.app+".* TO '"+s.root+"'@'%'")
		events := fields{"expiry_events": s.app}
		e := s.open(t, events)
		made := issue(t, e, s.reader(t))
		later := time.Now().Add(time.Hour)
		if err := e.Renew(t.Context(), made.recipe, later); err != nil {
			t.Fatal(err)
		}

		sessions := func() string {
			return s.server.Query(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '"+s.root+"'")[0][0]
		}
		before := sessions()
		const limit = time.Second
		o := s.options(events)
		o.Dial = proxy.Late("ALTER EVENT", limit+time.Second)
		slow := open(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if err := slow.Renew(ctx, made.recipe, time.Now().Add(time.Minute)); err == nil {
			t.Error("what was not done in time is answered as done")
		}
		slow.Close()
		eventually(t, "the session that was given up ended behind the message", func() bool { return sessions() <= before })
		if end := s.end(t, made.Username); end.Sub(later).Abs() > 2*time.Second {
			t.Errorf("a late renewal has taken back a later one: the source ends it at %s, not %s", end, later)
		}
		revoke(t, e, made.recipe)
	})
}
