package disk_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/scaivault/scaivault/api"
)

// work lets clients get, prolong and give back credentials, and the witness look, while the disk is
// recorded.
func work(t *testing.T, v *vault, r *recorder, witnessFile string, credentials int) {
	t.Helper()
	var wg sync.WaitGroup
	for client := range 4 {
		wg.Go(func() {
			for n := range credentials / 4 {
				made, err := v.issue()
				if err != nil {
					continue
				}
				r.add(event{op: "answered", lease: made.LeaseID})
				switch (n + client) % 4 {
				case 0:
					_, _ = v.leases.Renew(t.Context(), v.caller, made.LeaseID, api.RenewRequest{})
				case 1:
					_, _ = v.leases.Revoke(t.Context(), v.caller, made.LeaseID, 0)
				case 2:
					if v.witness.Note(t.Context()) == nil {
						content, err := os.ReadFile(witnessFile)
						if err != nil {
							t.Error(err)
						}
						r.add(event{op: "witness", data: content})
					}
				}
			}
		})
	}
	wg.Wait()
}

// Whatever a power cut leaves of what was not flushed: every answered 201 has its lease and the
// entry that it was requested, the chain verifies, nothing is there by half, and nobody is alarmed.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	dir, witnessFile, at := template(t)
	r := record(dir)
	first, err := os.ReadFile(witnessFile)
	must(t, err)
	r.add(event{op: "witness", data: first})
	v, err := open(dir, witnessFile, r.layer, at)
	must(t, err)
	work(t, v, r, witnessFile, often(100, 300))
	r.freeze()
	v.close()

	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0)) // told, so that a failure can be seen again
	for range often(8, 200) {
		moment := 1 + random.IntN(len(r.events))
		for _, l := range losses {
			image := filepath.Join(t.TempDir(), "image")
			must(t, put(image, r.image(moment, l, random)))
			w := filepath.Join(t.TempDir(), "witness")
			must(t, os.WriteFile(w, r.witness(moment), 0o600))
			err := examine(image, w, at, r.answered(moment))
			matrix.add("power cut, losing "+string(l), "any", outcome(err))
			if err != nil {
				t.Errorf("power cut after event %d of %d, losing %s (seed %d): %v", moment, len(r.events), l, seed, err)
			}
		}
	}
}
