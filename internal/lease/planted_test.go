package lease_test

import (
	"strings"
	"testing"

	"github.com/scaivault/scaivault/test/planted"
)

// TestPlanted builds this package with each of the faults that are planted in it and wants it caught.
func TestPlanted(t *testing.T) { //nolint:tparallel // beside the other tests, but one after the other: each build and its run fill the machine
	t.Parallel()
	caught, faults := 0, planted.In("internal/lease")
	for _, f := range faults {
		t.Run(strings.ReplaceAll(f.Name, " ", "_"), func(t *testing.T) {
			if f.Caught(t) {
				caught++
			} else {
				t.Errorf("%s: not caught", f.Name)
			}
		})
	}
	t.Logf("caught %d / planted %d", caught, len(faults))
}
