package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/secret"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	retentionEvery = 10 * time.Minute
	retentionFirst = time.Minute // after the start, which is busy with what is due
	trimRows       = 500         // a transaction, so that nobody waits long behind it
)

// retention trims what is older than it need be kept.
type retention struct {
	store        store.Store
	secrets      *secret.Service
	lease, audit time.Duration
	log          *slog.Logger
}

func (r *retention) run(ctx context.Context) {
	timer := time.NewTimer(retentionFirst)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if err := r.trim(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("retention: trimming failed, trying again", "error", err)
		}
		timer.Reset(retentionEvery)
	}
}

// trim works in small transactions until nothing is left to trim.
func (r *retention) trim(ctx context.Context) error {
	if quarantine.Active(r.store.Config()) {
		return nil // what is past its keeping stays, until this is the only copy
	}
	for {
		var n int
		err := r.store.Write(ctx, func(tx store.Tx) (err error) {
			now := tx.Now()
			if n, err = tx.Trim(now.Add(-r.lease), now.Add(-r.audit), trimRows); err != nil || n == 0 {
				return err
			}
			return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "system_retention", IdentityType: access.TypeSystem,
				IdentityID: "system:retention", Success: true, ExtraData: map[string]any{"rows": n}})
		})
		if err != nil {
			return err
		}
		if n < trimRows {
			break
		}
	}
	for {
		n, err := r.secrets.Purge(ctx, store.DefaultTenant)
		if err != nil || n == 0 {
			return err
		}
	}
}
