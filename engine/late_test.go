package engine_test

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Each dropped account is looked at as long after its own drop, however many were dropped shortly before: a
// login under way needs that time to show. One that could not be looked at is looked at again, and none
// when the engine is closed.
func TestEachAccountHasItsLateLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const delay = 3 * time.Second
		start, looked, failing := time.Now(), map[string][]time.Duration{}, 2
		look := func(due []string) (again []string) {
			for _, name := range due {
				looked[name] = append(looked[name], time.Since(start))
				if name == "failing" && failing > 0 {
					failing--
					again = append(again, name)
				}
			}
			return again
		}
		looks := engine.NewLateLooks(look)
		looks.Add("first")
		time.Sleep(delay - time.Millisecond)
		looks.Add("second", "third")
		time.Sleep(time.Minute)
		looks.Add("failing")
		time.Sleep(time.Minute)
		looks.Add("closed")
		looks.Close()
		idle := engine.NewLateLooks(look)
		idle.Close()
		idle.Add("after")
		time.Sleep(time.Minute)
		synctest.Wait()
		second, later := 2*delay-time.Millisecond, delay-time.Millisecond+time.Minute
		want := map[string][]time.Duration{"first": {delay}, "second": {second}, "third": {second}, "failing": {later + delay, later + 2*delay, later + 3*delay}}
		if !reflect.DeepEqual(looked, want) {
			t.Errorf("looked at %v, want %v", looked, want)
		}
	})
}
