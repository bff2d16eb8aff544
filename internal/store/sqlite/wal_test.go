package sqlite

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/scaivault/scaivault/internal/store"
)

// TestMendWAL turns bits of a log over that a killed store left. A single one of a frame is set right or
// refused, and nothing else is ever made of it; where two are wrong, the log ends, and stays as it is.
func TestMendWAL(t *testing.T) {
	t.Parallel()
	s := openForTest(t)
	for range 20 {
		if err := s.Write(t.Context(), func(tx store.Tx) error { return tx.PutMeta("key", make([]byte, 5000)) }); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.ReadFile(s.disk.sums.database + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	const frame = frameHeader + pageSize
	if len(log) < walHeader+20*frame {
		t.Fatalf("the log has %d bytes", len(log))
	}
	path := filepath.Join(t.TempDir(), "wal")
	mended := func(bits ...int) (after []byte, where []string, err error) {
		t.Helper()
		wrong := slices.Clone(log)
		for _, bit := range bits {
			wrong[bit/8] ^= 1 << (bit % 8)
		}
		if err := os.WriteFile(path, wrong, 0o600); err != nil {
			t.Fatal(err)
		}
		where, failed := mendWAL(path)
		if after, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		return after, where, failed
	}
	if after, where, err := mended(); err != nil || !bytes.Equal(after, log) || where != nil {
		t.Errorf("a whole log was mended in %v: %v", where, err)
	}
	right := 0
	for range 24 {
		bit := rand.IntN(8 * (walHeader + 20*frame))
		after, where, err := mended(bit)
		switch {
		case errors.Is(err, errAmbiguous) && where == nil:
		case err != nil || !bytes.Equal(after, log) || len(where) != 1:
			t.Errorf("bit %d was mended in %v: %v", bit, where, err)
		default:
			right++
		}
	}
	if right < 12 {
		t.Errorf("of 24 wrong bits, %d were set right", right)
	}
	// In each frame's own page, low bits of words, which the checksum tells apart.
	several := []int{8 * (walHeader + 4*frame + frameHeader), 8 * (walHeader + 6*frame + frameHeader + 400), 8 * (walHeader + 16*frame + frameHeader + 4000)}
	if after, where, err := mended(several...); err != nil || !bytes.Equal(after, log) || len(where) != len(several) {
		t.Errorf("bits of several frames were mended in %v: %v", where, err)
	}
	if after, where, err := mended(several[0], several[0]+100); err != nil || bytes.Equal(after, log) || where != nil {
		t.Errorf("two bits of a frame were mended in %v: %v", where, err)
	}
}
