package engine_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// A pause that the context does not leave time for is not begun.
func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			limit, cancel, took time.Duration
			want                bool
		}{
			"enough time": {time.Minute, time.Hour, 10 * time.Second, true},
			"too little":  {5 * time.Second, time.Hour, 0, false},
			"cancelled":   {time.Minute, 3 * time.Second, 3 * time.Second, false},
		} {
			ctx, end := context.WithTimeout(t.Context(), tt.limit)
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(tt.cancel, cancel)
			begun := time.Now()
			if got := engine.Wait(ctx, 10*time.Second); got != tt.want || time.Since(begun) != tt.took {
				t.Errorf("%s: %t after %s", name, got, time.Since(begun))
			}
			cancel()
			end()
		}
	})
}
