// Package failpoints_test kills the real server at every named moment
// (internal/failpoint) and looks at what holds when it, or another node of the
// same store, goes on; and it holds three nodes in the moments between an
// intent and the source while what they issue is revoked.
//
//	make crash-matrix  every point, on both stores, with every version of the source
//	make fence-rounds  fifty rounds
//
// The short forms run with the other tests.
package failpoints_test

import (
	"flag"
	"os"
	"testing"

	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Scenarios wait for deadlines most of their time, they do not compute.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	status := pgtest.Main(m)
	accounts.Close()
	os.Exit(status)
}

// full tells whether the long forms are asked for.
func full() bool { return os.Getenv("SCAIVAULT_TEST_FULL") != "" }
