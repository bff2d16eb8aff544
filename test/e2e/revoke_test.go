package e2e_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// session is what a credential may be busy with when it is revoked. It returns
// when it is busy with it, and gives what ends when the session does; nil where
// nothing is under way.
type session struct {
	name  string
	begin func(t *testing.T, s *source, c credential, conn *pgx.Conn) (ended <-chan error)
}

func sessions() []session {
	return []session{
		{"idle", func(*testing.T, *source, credential, *pgx.Conn) <-chan error { return nil }},
		{"after SET ROLE", func(t *testing.T, s *source, c credential, conn *pgx.Conn) <-chan error {
			t.Helper()
			var group string
			if err := s.query(t, &group, "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = $1::text::regrole", c.username); err != nil {
				t.Fatalf("find the group: %v", err)
			}
			run(t, conn, "SET ROLE "+group, "SELECT FROM public.items")
			return nil
		}},
		{"in a transaction that locks its own table", func(t *testing.T, _ *source, c credential, conn *pgx.Conn) <-chan error {
			t.Helper()
			table := "own_" + c.username
			run(t, conn, "CREATE TABLE public."+table+" (id int)", "BEGIN", "LOCK TABLE public."+table+" IN ACCESS EXCLUSIVE MODE")
			return nil
		}},
		{"in pg_sleep(600)", func(t *testing.T, s *source, c credential, conn *pgx.Conn) <-chan error {
			t.Helper()
			ended := background(func() error {
				_, err := conn.Exec(context.Background(), "SELECT pg_sleep(600)")
				return err
			})
			s.awaitQuery(t, c, "SELECT pg_sleep(600)")
			return ended
		}},
		{"in COPY", func(t *testing.T, s *source, c credential, conn *pgx.Conn) <-chan error {
			t.Helper()
			run(t, conn, "CREATE TABLE public.copy_"+c.username+" (id int)")
			endless, feed := io.Pipe()
			t.Cleanup(func() { _ = feed.Close() })
			copying := "COPY public.copy_" + c.username + " FROM STDIN"
			ended := background(func() error {
				_, err := conn.PgConn().CopyFrom(context.Background(), endless, copying)
				return err
			})
			if _, err := feed.Write([]byte("1\n")); err != nil {
				t.Fatal(err)
			}
			s.awaitQuery(t, c, copying)
			return ended
		}},
	}
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func background(do func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	return ended
}

// awaitQuery waits until the source itself shows the account at work.
func (s *source) awaitQuery(t *testing.T, c credential, sql string) {
	t.Helper()
	eventually(t, 10*time.Second, sql+" is under way", func() bool {
		return s.count(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND query = $2", c.username, sql) == 1
	})
}

// oid is the account's id at the source, by which its sessions are known even
// when it is gone.
func (s *source) oid(t *testing.T, c credential) int {
	t.Helper()
	return s.count(t, "SELECT oid::int FROM pg_roles WHERE rolname = $1", c.username)
}

func (s *source) sessions(t *testing.T, oid int) int {
	t.Helper()
	return s.count(t, "SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1::int::oid", oid)
}

// At 204 nothing of the credential is left, whatever it was busy with.
func TestDeadWhenAnswered(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17, 18} {
		for _, way := range []string{createRole, functions} {
			t.Run(fmt.Sprint(major, " ", way), func(t *testing.T) {
				t.Parallel()
				v, s := newVault(t), newSource(t, pgtest.Shared(t, major), way)
				s.server.ExecIn(t, s.db, "GRANT CREATE ON SCHEMA public TO "+s.root+" WITH GRANT OPTION")
				v.engine(t, s, "db", nil)
				v.role(t, "db", client.Document{"name": "maker", "privileges": []string{"USAGE, CREATE ON SCHEMA public", "SELECT ON ALL TABLES IN SCHEMA public"}})

				for _, busy := range sessions() {
					cred := v.issue(t, v.admin, "db", "maker", 0)
					conn, oid := s.login(t, cred), s.oid(t, cred)
					ended := busy.begin(t, s, cred, conn)
					v.revoke(t, cred)
					if n := s.sessions(t, oid); n != 0 {
						t.Errorf("%s: %d sessions are left", busy.name, n)
					}
					s.mustBeDead(t, cred)
					if ended != nil {
						if err := <-ended; err == nil {
							t.Errorf("%s: it went on to its end", busy.name)
						}
					} else if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
						t.Errorf("%s: the session lives", busy.name)
					}
				}
				reconnecting(t, v, s)
				loggingIn(t, v, s)
			})
		}
	}
}

// reconnecting revokes under clients that come back as fast as they can.
func reconnecting(t *testing.T, v *vault, s *source) {
	t.Helper()
	cred := v.issue(t, v.admin, "db", "maker", 0)
	oid := s.oid(t, cred)
	answered, began := make(chan struct{}), make(chan struct{}, 4)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for told := false; ; told = true {
				late := isClosed(answered)
				err := s.tryLogin(cred)
				if err == nil && late {
					t.Error("a client got in again after the answer")
				}
				if !told {
					began <- struct{}{}
				}
				if late {
					return
				}
			}
		})
	}
	for range 4 {
		<-began
	}
	v.revoke(t, cred)
	if n := s.sessions(t, oid); n != 0 {
		t.Errorf("reconnecting: %d sessions are left", n)
	}
	close(answered)
	clients.Wait()
	s.mustBeDead(t, cred)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// loggingIn revokes while a login that has passed its checks is not yet to be
// seen at the source: PostgreSQL is told to wait there. When it completes, its
// account is gone; it must not be let work on with the rights of the group.
func loggingIn(t *testing.T, v *vault, s *source) {
	t.Helper()
	cred := v.issue(t, v.admin, "db", "maker", 0)
	oid := s.oid(t, cred)
	login := background(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, s.server.URL(cred.username, cred.password, s.db)+"&options=-c%20post_auth_delay%3D1")
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "SELECT pg_sleep(20)")
		return err
	})
	// Nothing shows that the login has passed its checks: that is the point of
	// the experiment. It takes milliseconds, and then a second is spent waiting.
	time.Sleep(300 * time.Millisecond)
	v.revoke(t, cred)
	s.mustBeDead(t, cred)
	if err := <-login; err == nil {
		t.Error("a login that was under way worked on undisturbed")
	}
	eventually(t, 10*time.Second, "the late session is gone", func() bool { return s.sessions(t, oid) == 0 })
}
