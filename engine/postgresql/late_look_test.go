package postgresql

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Each dropped account is looked at as long after its own drop, however many
// were dropped shortly before: a login under way needs that time to show.
func TestEachAccountHasItsLateLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l lateLook
		var look func()
		start, looked := time.Now(), map[uint32]time.Duration{}
		look = func() {
			for _, oid := range slices.Sorted(maps.Keys(l.take(look))) {
				looked[oid] = time.Since(start)
			}
		}
		l.add(look, 1, "v_first")
		time.Sleep(lateDelay - time.Millisecond)
		l.add(look, 2, "v_second")
		time.Sleep(time.Minute)
		synctest.Wait()
		l.add(look, 3, "v_third")
		time.Sleep(time.Minute)
		synctest.Wait()
		want := map[uint32]time.Duration{1: lateDelay, 2: 2*lateDelay - time.Millisecond, 3: 2*lateDelay - time.Millisecond + time.Minute}
		if !maps.Equal(looked, want) {
			t.Errorf("looked at %v, want %v", looked, want)
		}
	})
}
