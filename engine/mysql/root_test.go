package mysql_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// After a rotation the former password, which the server kept while the new one was
// proved, is refused; other ways to log in stay.
func TestRotationEndsTheFormerPassword(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		if s.server.Kind == mysqltest.MariaDB {
			s.server.Exec(t, "ALTER USER '"+s.root+"'@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('"+rootPassword+"') OR unix_socket")
		}
		e := s.open(t, nil)
		candidate, err := e.PlanRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := e.SetRoot(t.Context(), candidate); err != nil {
			t.Fatalf("set root: %v", err)
		}
		if opened, err := s.server.Login(t.Context(), s.root, rootPassword, ""); err == nil {
			opened.Close()
			t.Error("the former password is taken")
		}
		s.mustRotate(t, candidate["password"])
		if s.server.Kind == mysqltest.MariaDB {
			if shown := s.server.Query(t, "SHOW CREATE USER '"+s.root+"'@'%'")[0][0]; !strings.Contains(shown, "unix_socket") || strings.Count(shown, "mysql_native_password") != 1 {
				t.Errorf("the ways to log in are %s", shown)
			}
		}
	})
}

// mustRotate fails unless an engine opened with the password works.
func (s *source) mustRotate(t testing.TB, password statement.Secret) {
	t.Helper()
	options := s.options(nil)
	options.Root["password"] = password
	revoke(t, open(t, options), issue(t, open(t, options), s.reader(t)).recipe)
}

// Whichever of two engines that rotate at once comes last, what it was told to set is
// what the source takes.
func TestRotationsTakeTurns(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		var mu sync.Mutex
		var taken []statement.Secret
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				candidate, err := e.PlanRoot(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				err = e.SetRoot(t.Context(), candidate)
				mu.Lock()
				defer mu.Unlock()
				switch engine.KindOf(err) {
				case 0:
					taken = append(taken, candidate["password"])
				case engine.Busy, engine.Misconfigured:
				default:
					t.Errorf("set root: %v", err)
				}
			})
		}
		wg.Wait()
		works := 0
		for _, password := range taken {
			if opened, err := s.server.Login(t.Context(), s.root, password.Reveal(), ""); err == nil {
				opened.Close()
				works++
			}
		}
		if works != 1 {
			t.Errorf("of %d passwords that were set %d work", len(taken), works)
		}
	})
}
