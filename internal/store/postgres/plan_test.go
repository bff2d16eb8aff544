package postgres

import (
	"errors"
	"fmt"
	"testing"

	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/storetest"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestNothingGrowsWithTheLeases counts the rows that the database looks at for each step: they are
// bounded however many leases there are, before it has gathered statistics and after (law L10).
func TestNothingGrowsWithTheLeases(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, 17, pgtest.WithSetting("autovacuum", "off"))
	s, err := Open(t.Context(), Config{URL: server.SuperURL(server.CreateDB(t)), Dir: t.TempDir(), Chain: storetest.Chain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Write(t.Context(), storetest.Crowd); err != nil {
		t.Fatal(err)
	}
	undo := errors.New("undo")
	for _, state := range []string{"without statistics", "with statistics"} {
		for _, step := range storetest.Steps() {
			err := s.Write(t.Context(), func(st store.Tx) error {
				before, err := looked(st.(*tx))
				if err != nil {
					return err
				}
				if err := step.Do(st); err != nil {
					return fmt.Errorf("%s: %w", step.Name, err)
				}
				after, err := looked(st.(*tx))
				if n := after - before; err == nil && n > storetest.StepRows {
					t.Errorf("%s, %s: %d rows were looked at", step.Name, state, n)
				}
				return errors.Join(err, undo)
			})
			if !errors.Is(err, undo) {
				t.Fatal(err)
			}
		}
		if _, err := s.pool.Exec(t.Context(), "ANALYZE"); err != nil {
			t.Fatal(err)
		}
	}
}

// looked is how many rows of the tables that grow this transaction has looked at, in them or in
// their indexes.
func looked(t *tx) (n int64, err error) {
	_, err = t.one(`SELECT (SELECT sum(coalesce(pg_stat_get_xact_tuples_returned(c.oid), 0))::bigint
		FROM pg_class c WHERE c.relname IN ('leases', 'audit') OR c.oid IN (
			SELECT indexrelid FROM pg_index WHERE indrelid IN ('leases'::regclass, 'audit'::regclass)))`, nil, &n)
	return n, err
}
