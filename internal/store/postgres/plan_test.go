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
// bounded however many leases there are, before it has gathered statistics, after, and when others
// have come and most have died since (law L10). PostgreSQL 18 searches an index in another way than
// those before.
func TestNothingGrowsWithTheLeases(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			server := pgtest.Start(t, major, pgtest.WithSetting("autovacuum", "off"))
			s, err := Open(t.Context(), Config{URL: server.SuperURL(server.CreateDB(t)), Dir: t.TempDir(), Chain: storetest.Chain})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			write := func(fn func(store.Tx) error) {
				t.Helper()
				if err := s.Write(t.Context(), fn); err != nil {
					t.Fatal(err)
				}
			}
			exec := func(sql string) {
				t.Helper()
				if _, err := s.pool.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			write(storetest.Crowd)
			write(storetest.Later)
			lookAtSteps(t, s, "without statistics")
			exec("ANALYZE")
			exec(sparse)
			exec("REINDEX TABLE leases")
			lookAtSteps(t, s, "with statistics")

			exec("DELETE FROM leases WHERE engine_id <> 'eng_a'")
			exec("VACUUM ANALYZE")
			write(storetest.Later)
			exec("UPDATE leases SET status = 'revoked', due_at = NULL, overdue_at = NULL WHERE id BETWEEN 'lease_00000200' AND 'lease_00005999'")
			exec("VACUUM leases")
			lookAtSteps(t, s, "with former statistics")
		})
	}
}

// sparse lets the pages of indexes hold little when they are made again: then few leases are enough to
// see what is passed over within an index, and an index has more levels than the one of the ids.
const sparse = `DO $$ DECLARE i regclass; BEGIN
	FOR i IN SELECT indexrelid FROM pg_index WHERE indrelid = 'leases'::regclass AND NOT indisprimary LOOP
		EXECUTE format('ALTER INDEX %s SET (fillfactor = 10)', i);
	END LOOP; END $$`

func lookAtSteps(t *testing.T, s *Store, state string) {
	t.Helper()
	undo := errors.New("undo")
	for _, step := range storetest.Steps() {
		err := s.Write(t.Context(), func(st store.Tx) error {
			tx := st.(*tx)
			rowsBefore, pagesBefore, err := looked(tx)
			if err != nil {
				return err
			}
			if err := step.Do(st); err != nil {
				return fmt.Errorf("%s: %w", step.Name, err)
			}
			rows, pages, err := looked(tx)
			rows, pages = rows-rowsBefore, pages-pagesBefore
			if err == nil && rows > storetest.StepRows {
				t.Errorf("%s, %s: %d rows were looked at", step.Name, state, rows)
			}
			// A row that is read takes a page of its table and one of its index at most; and there are the ways down.
			if err == nil && !tx.wrote && pages > 2*rows+50 {
				t.Errorf("%s, %s: %d pages were looked at for %d rows", step.Name, state, pages, rows)
			}
			return errors.Join(err, undo)
		})
		if !errors.Is(err, undo) {
			t.Fatal(err)
		}
	}
}

// looked is how many rows of the tables that grow this transaction has looked at, in them or in
// their indexes, and how many of their pages.
func looked(t *tx) (rows, pages int64, err error) {
	_, err = t.one(`SELECT sum(pg_stat_get_xact_tuples_returned(oid))::bigint, sum(pg_stat_get_xact_blocks_fetched(oid))::bigint
		FROM pg_class WHERE relname IN ('leases', 'audit') OR oid IN (
			SELECT indexrelid FROM pg_index WHERE indrelid IN ('leases'::regclass, 'audit'::regclass))`, nil, &rows, &pages)
	return rows, pages, err
}
