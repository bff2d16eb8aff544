package postgres_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/postgres"
	"github.com/scaivault/scaivault/internal/store/storetest"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func open(t testing.TB, url, dir string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Dir: dir, Chain: storetest.Chain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Every folder of the suite has a database of its own.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			server := pgtest.Shared(t, major)
			storetest.Run(t, func(t *testing.T, dir string) store.Store {
				file := filepath.Join(dir, "database")
				name, err := os.ReadFile(file)
				if err != nil {
					name = []byte(server.CreateDB(t))
					if err := os.WriteFile(file, name, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				return open(t, server.SuperURL(string(name)), dir)
			})
		})
	}
}
