package sqlite_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/scaivault/scaivault/internal/store"
)

// TestCountersOfUndoneFunctions has functions that fail after their write share
// transactions with others: only what stays is counted, within and after.
func TestCountersOfUndoneFunctions(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	refused := errors.New("refused")
	counted := func(r store.Reader) (n int64, err error) {
		counts, err := r.LeaseCounts("")
		for _, c := range counts {
			n += c.N
		}
		return n, err
	}
	const kept = 50
	var wg sync.WaitGroup
	for i := range 2 * kept {
		wg.Go(func() {
			err := s.Write(context.Background(), func(tx store.Tx) error {
				before, err := counted(tx)
				if err != nil {
					return err
				}
				if err := tx.InsertLease(benchLease()); err != nil {
					return err
				}
				if after, err := counted(tx); err != nil || after != before+1 {
					t.Errorf("%d after %d, %v", after, before, err)
				}
				if i%2 == 1 {
					return refused
				}
				return nil
			})
			if i%2 == 0 && err != nil || i%2 == 1 && !errors.Is(err, refused) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Read(t.Context(), func(r store.Reader) error {
		n, err := counted(r)
		if n != kept {
			t.Errorf("%d counted of %d", n, kept)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
