package access

import (
	"context"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// refusals collects requests that were turned away before anything was judged, so that a flood of
// them costs one entry per address, code and minute. A crash loses at most the last minute of
// these: none of them did anything.
type refusals struct {
	mu     sync.Mutex
	counts map[refusal]int
}

type refusal struct {
	minute   int64 // Unix
	tenant   string
	address  string
	identity string // of who holds the ended token, or reached a limit; else ""
	code     fault.Code
}

// maxRefusals bounds what is collected between two flushes; what is beyond is counted together.
const maxRefusals = 4096

func (r *refusals) note(o Origin, tenant, identity string, code fault.Code) {
	k := refusal{minute: time.Now().Unix() / 60, tenant: tenant, identity: identity, code: code}
	if o.SourceIP.IsValid() {
		k.address = o.SourceIP.Unmap().String()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[refusal]int{}
	}
	if _, ok := r.counts[k]; !ok && len(r.counts) >= maxRefusals {
		k = refusal{minute: k.minute, tenant: store.DefaultTenant, address: "others", code: code}
	}
	r.counts[k]++
}

// take removes what was collected in minutes before the one given.
func (r *refusals) take(before int64) map[refusal]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := map[refusal]int{}
	for k, n := range r.counts {
		if k.minute < before {
			taken[k] = n
			delete(r.counts, k)
		}
	}
	return taken
}

func (r *refusals) giveBack(taken map[refusal]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, n := range taken {
		r.counts[k] += n
	}
}

// Run writes the entries of each minute when it is over, until ctx ends, and then what is left.
func (d *Door) Run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			d.flush(ctx, now.Unix()/60)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
			defer cancel()
			d.flush(ctx, time.Now().Unix()/60+1)
			return
		}
	}
}

func (d *Door) flush(ctx context.Context, before int64) {
	taken := d.refusals.take(before)
	if len(taken) == 0 {
		return
	}
	err := d.store.Write(ctx, func(tx store.Tx) error {
		for k, n := range taken {
			if err := tx.Audit(k.tenant, k.entry(n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		d.refusals.giveBack(taken)
		d.log.Error("audit: record refused requests", "error", err, "entries", len(taken))
	}
}

func (k refusal) entry(n int) *api.AuditEntry {
	return &api.AuditEntry{
		Action:       "auth_refused",
		IdentityType: identityType(k.identity),
		IdentityID:   k.identity,
		SourceIP:     k.address,
		ExtraData: map[string]any{
			"error":  string(k.code),
			"count":  n,
			"minute": time.Unix(k.minute*60, 0).UTC().Format(time.RFC3339),
		},
	}
}
