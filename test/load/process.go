package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// idle is how long a server does nothing before its memory counts.
const idle = 3 * time.Second

// process measures starts and memory, with stores of different ages.
func (b *bench) process(ctx context.Context) error {
	ages := []int{0, 10, 10_000, 100_000}
	if b.quick {
		ages = ages[:3]
	}
	for _, leases := range ages {
		b.say("starts with %d leases in the store", leases)
		took, memory, err := b.starts(ctx, leases)
		if err != nil {
			return err
		}
		with := fmt.Sprintf("%d leases, half of them live", leases)
		aim := ""
		if leases == 0 {
			with, aim = "an empty store", "< 300 ms"
		}
		b.report.figure("process", "start to ready with "+with,
			fmt.Sprintf("%.0f ms (%.0f to %.0f)", median(took), took[0], took[len(took)-1]), aim)
		if leases == 0 {
			aim = "< 60 MiB"
		}
		b.report.figure("process", "resident memory, idle, with "+with, fmt.Sprintf("%.0f MiB", memory), aim)
	}
	return nil
}

// starts measures several starts on one store, in milliseconds and sorted, and
// the memory of the last.
func (b *bench) starts(ctx context.Context, leases int) (took []float64, memory float64, err error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("store-%d", leases))
	v, err := startVault(ctx, b.binary, dir) // makes the store and its key
	if err != nil {
		return nil, 0, err
	}
	if err := v.close(); err != nil {
		return nil, 0, err
	}
	if err := fill(ctx, dir, leases); err != nil {
		return nil, 0, fmt.Errorf("fill the store: %w", err)
	}
	const starts = 7
	for range starts {
		v, err := startVault(ctx, b.binary, dir)
		if err != nil {
			return nil, 0, err
		}
		took = append(took, float64(v.took.Microseconds())/1000)
		if len(took) == starts {
			select {
			case <-time.After(idle):
			case <-ctx.Done():
			}
			memory, err = v.resident()
		}
		if err := errors.Join(err, v.close()); err != nil {
			return nil, 0, err
		}
	}
	slices.Sort(took)
	return took, memory, ctx.Err()
}

// fill puts leases into the store of a server that is not running: every other
// one lives for a year, the rest are revoked.
func fill(ctx context.Context, dir string, n int) error {
	s, err := sqlite.Open(ctx, sqlite.Config{Dir: dir})
	if err != nil {
		return err
	}
	const batch = 1000
	for done := 0; done < n && err == nil; done += batch {
		err = s.WriteRelaxed(ctx, func(tx store.Tx) error {
			for i := range min(batch, n-done) {
				if err := tx.InsertLease(lease(i%2 == 0)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return errors.Join(err, s.Close())
}

// lease is a row as an issuance leaves it.
func lease(live bool) *store.Lease {
	id, now := ident.New(ident.Lease), time.Now().UTC()
	year := now.AddDate(1, 0, 0)
	l := &store.Lease{
		ID: id, Tenant: store.DefaultTenant, EngineID: "eng_00000000000000000000000000", Engine: usual, Role: member,
		Identity: "sa:bench", Status: api.LeaseActive, Renewable: true, Username: "v_member_" + id[len(id)-16:],
		Recipe:   engine.Recipe(`{"username":"v_member_` + id[len(id)-16:] + `","group":"sv_0000000000_member_00000000","oid":123456}`),
		IssuedAt: now, ExpiresAt: year, MaxExpiresAt: year, DueAt: &year, Node: "node", Epoch: 1,
	}
	if !live {
		l.Status, l.DueAt, l.RevokedAt = api.LeaseRevoked, nil, &now
		l.Revocation = &api.Revocation{Reason: api.ReasonRevoked, RequestedAt: now, RequestedBy: "sa:bench", Attempts: 1}
	}
	return l
}
