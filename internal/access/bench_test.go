package access_test

import (
	"context"
	"testing"
	"time"
)

// BenchmarkTokenLookup is the way from a bearer token to its caller, for a token
// that was used before.
func BenchmarkTokenLookup(b *testing.B) {
	w := setup(b, noLimits)
	w.account("ci")
	_, text := w.token("sa:ci", time.Hour, "dynamic:generate")
	origin := from("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.door.Authenticate(context.Background(), text, "", origin); err != nil {
			b.Fatal(err)
		}
	}
}
