package mysql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// An open session with rights over everything is dead when the revocation is done.
func TestGlobalRightsEnd(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		s.server.Exec(t, "GRANT SELECT, PROCESS ON *.* TO '"+s.root+"'@'%' WITH GRANT OPTION")
		e := s.open(t, nil)
		c := issue(t, e, parseRole(t, fields{"privileges": []string{"SELECT, PROCESS ON *.*"}}))
		opened := s.mustWork(t, c)
		revoke(t, e, c.recipe)
		if opened.Works(t.Context()) {
			t.Error("an open session with global rights goes on")
		}
		s.mustBeGone(t, c)
	})
}

// Every entry of the name goes, also one that somebody added.
func TestAllHostsOfANameEnd(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		c := issue(t, e, s.reader(t))
		s.server.Exec(t, "CREATE USER '"+c.Username+"'@'127.0.0.1' IDENTIFIED BY 'another'", "GRANT SELECT ON "+s.app+".* TO '"+c.Username+"'@'127.0.0.1'")
		other, err := s.server.Login(t.Context(), c.Username, "another", s.app)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		revoke(t, e, c.recipe)
		s.mustBeGone(t, c)
		if other.PingContext(t.Context()) == nil {
			t.Error("a session of the other entry goes on")
		}
	})
}

// What others define as an issued account keeps it on MySQL: locked, without rights,
// and named. On MariaDB the account goes. In neither can the object do anything.
func TestDefiner(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		s.server.Exec(t, "GRANT CREATE VIEW, SHOW VIEW, CREATE ROUTINE, EVENT, TRIGGER, CREATE ON "+s.app+".* TO '"+s.root+"'@'%' WITH GRANT OPTION")
		e := s.open(t, nil)
		c := issue(t, e, parseRole(t, fields{"privileges": []string{"SELECT, CREATE VIEW, SHOW VIEW ON " + s.app + ".*"}}))
		opened := s.mustWork(t, c)
		if _, err := opened.ExecContext(t.Context(), "CREATE VIEW "+s.app+".mine AS SELECT * FROM "+s.app+".orders"); err != nil {
			t.Fatal(err)
		}
		bystander := issue(t, e, s.reader(t))
		results := e.RevokeBatch(t.Context(), []engine.Recipe{c.recipe, bystander.recipe})
		for _, r := range results {
			if r.Err != nil {
				t.Fatalf("revoke: %v", r.Err)
			}
		}
		s.mustBeGone(t, bystander)
		if results[1].Residue != "" {
			t.Errorf("the bystander has a residue: %s", results[1].Residue)
		}
		if opened.Works(t.Context()) {
			t.Error("the session goes on")
		}
		if err := s.server.Try("SELECT * FROM " + s.app + ".mine"); err == nil {
			t.Error("the view still reads with the rights of the dead credential")
		}
		if s.server.Kind == mysqltest.MariaDB {
			s.mustBeGone(t, c)
			return
		}
		if r := results[0].Residue; !strings.Contains(r, "VIEW "+s.app+".mine") || !strings.Contains(r, "DROP USER '"+c.Username+"'@'%'") {
			t.Errorf("the residue does not say what to do: %q", r)
		}
		if _, err := s.login(t.Context(), c.Data); err == nil {
			t.Error("a residue logs in")
		}
		s.server.Exec(t, "DROP VIEW "+s.app+".mine")
		if outcome := revoke(t, e, c.recipe); outcome.Residue != "" {
			t.Errorf("the residue is still there: %s", outcome.Residue)
		}
		s.mustBeGone(t, c)
	})
}

// A root that may kill nobody must not take the server's OK for it, and says what it
// lacks.
func TestWithoutTheRightToKill(t *testing.T) {
	t.Parallel()
	right := map[string]string{mysqltest.MySQL: "CONNECTION_ADMIN", mysqltest.MariaDB: "CONNECTION ADMIN"}
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		c := issue(t, e, s.reader(t))
		opened := s.mustWork(t, c)
		revokeRight := "REVOKE " + right[s.server.Kind] + " ON *.* FROM '" + s.root + "'@'%'"
		s.server.Exec(t, revokeRight)
		less := s.open(t, nil) // sessions keep the global rights of their login
		if _, err := less.Revoke(t.Context(), c.recipe); err == nil {
			t.Error("revoked, with a session that goes on")
		} else if kind := engine.KindOf(err); kind != engine.Misconfigured && kind != engine.Busy {
			t.Errorf("kind %d: %v", kind, err)
		}
		if h := less.Check(t.Context()); h.Status != "misconfigured" || !strings.Contains(strings.Join(h.MissingGrants, ";"), right[s.server.Kind]) {
			t.Errorf("health: %+v", h)
		}
		s.server.Exec(t, "GRANT "+right[s.server.Kind]+" ON *.* TO '"+s.root+"'@'%'")
		more := s.open(t, nil)
		revoke(t, more, c.recipe)
		if opened.Works(t.Context()) {
			t.Error("the session goes on")
		}
		s.mustBeGone(t, c)
	})
}

// An account that somebody dropped is dead only when its session is.
func TestSessionOfADroppedAccountEnds(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		c := issue(t, e, s.reader(t))
		opened := s.mustWork(t, c)
		s.server.Exec(t, "DROP USER '"+c.Username+"'@'%'")
		revoke(t, e, c.recipe)
		if opened.PingContext(t.Context()) == nil {
			t.Error("the session of a dropped account goes on")
		}
	})
}

// With expiry_events the source locks the account and ends its sessions by itself,
// at the end that was set last.
func TestExpiryEvents(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		s.server.Exec(t, "SET GLOBAL event_scheduler = ON", "GRANT EVENT ON "+s.app+".* TO '"+s.root+"'@'%'")
		e := s.open(t, fields{"expiry_events": s.app})
		for _, role := range []engine.Role{s.reader(t), parseRole(t, s.statements())} {
			c := issue(t, e, role)
			opened := s.mustWork(t, c)
			if end := s.end(t, c.Username); end.Sub(c.ExpiresAt).Abs() > 2*time.Second {
				t.Errorf("the source ends it at %s, not %s", end, c.ExpiresAt)
			}
			later := c.ExpiresAt.Add(time.Hour)
			for range 2 {
				if err := e.Renew(t.Context(), c.recipe, later); err != nil {
					t.Fatalf("renew: %v", err)
				}
			}
			if end := s.end(t, c.Username); end.Sub(later).Abs() > 2*time.Second {
				t.Errorf("the source ends it at %s, not %s", end, later)
			}
			if err := e.Renew(t.Context(), c.recipe, time.Now().Add(2*time.Second)); err != nil {
				t.Fatalf("shorten: %v", err)
			}
			eventually(t, "the source ended the session", func() bool { return !opened.Works(t.Context()) })
			if late, err := s.login(t.Context(), c.Data); err == nil {
				late.Close()
				t.Error("who is past the end logs in")
			}
			if found, err := e.Lookup(t.Context(), c.recipe); err != nil || found.State != engine.Unusable {
				t.Errorf("past its end it is looked up as %d, %v", found.State, err)
			}
			revoke(t, e, c.recipe)
			s.mustBeGone(t, c)

			early := issue(t, e, role)
			revoke(t, e, early.recipe)
			s.mustBeGone(t, early)
		}
		if rows := s.server.Query(t, "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = '"+s.app+"'"); len(rows) > 0 {
			t.Errorf("events are left: %v", rows)
		}
		if h := e.Check(t.Context()); h.Status != "healthy" || len(h.Warnings) > 0 {
			t.Errorf("health: %+v", h)
		}
	})
}

// end is when the source's event ends a credential.
func (s *source) end(t testing.TB, name string) time.Time {
	t.Helper()
	rows := s.server.Query(t, "SELECT DATE_FORMAT(EXECUTE_AT, '%Y-%m-%dT%TZ') FROM information_schema.EVENTS WHERE EVENT_NAME = '"+name+"'")
	if len(rows) != 1 {
		t.Fatalf("there are %d events of %s", len(rows), name)
	}
	end, err := time.Parse(time.RFC3339, rows[0][0])
	if err != nil {
		t.Fatal(err)
	}
	return end
}
