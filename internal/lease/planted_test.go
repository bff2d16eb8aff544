package lease_test

import (
	"strings"
	"testing"

	"github.com/scaivault/scaivault/test/planted"
)

// TestPlanted builds this package with each of the faults that are planted in it and wants it caught.
func TestPlanted(t *testing.T) {
	t.Parallel()
	for _, f := range planted.In("internal/lease") {
		t.Run(strings.ReplaceAll(f.Name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if !f.Caught(t) {
				t.Errorf("%s: not caught", f.Name)
			}
		})
	}
}
