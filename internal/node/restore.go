package node

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/backup"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/postgres"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// VerifyBackup reads a whole backup and touches no store. Where the seal's key is at hand it also
// proves that the key opens what is sealed, and that nobody else wrote the backup.
func VerifyBackup(ctx context.Context, c *config.Config, r *backup.Reader) (*backup.Summary, error) {
	_, mac, err := openBackup(ctx, c, r)
	if err != nil && !errors.Is(err, seal.ErrNoKey) {
		return nil, err
	}
	for _, err := range r.Records(mac) {
		if err != nil {
			return nil, err
		}
	}
	return r.Summary(mac != nil), nil
}

// openBackup opens the keyring of a backup with the seal's key. It never makes one: what was sealed
// by another key would stay closed.
func openBackup(ctx context.Context, c *config.Config, r *backup.Reader) (keys *seal.Keyring, mac []byte, err error) {
	key, err := seal.OpenFile(c.SealKeyFile)
	if err != nil {
		return nil, nil, err
	}
	if keys, err = seal.OpenSealed(ctx, key, r.Header.Keyring); err != nil {
		return nil, nil, err
	}
	mac, err = keys.BackupKey()
	return keys, mac, err
}

// Restore makes the store of a backup in an empty place. Before anything is written it is known that
// the seal's key is the right one; before anybody can open the store, that the backup was whole and
// authentic, and that the audit chains, as they lie in the store now, are. The store begins in
// quarantine. When Restore fails or is killed there is no store, and nothing else was touched.
//
// acceptBroken restores a store whose audit chain was broken already when it was backed up.
func Restore(ctx context.Context, c *config.Config, o Options, r *backup.Reader, acceptBroken bool) (*backup.Summary, error) {
	keys, mac, err := openBackup(ctx, c, r)
	if errors.Is(err, seal.ErrNoKey) {
		return nil, fmt.Errorf("restore: the backup does not hold the seal key, and there is none at %s: bring the key file back that the data were sealed by, or set SEAL_KEY_FILE", c.SealKeyFile)
	}
	if err != nil {
		return nil, err
	}
	if err := importStore(ctx, c, o, r.Records(mac)); err != nil {
		return nil, err
	}
	st, err := openKind(ctx, c, o.Logger, true)
	if err != nil {
		return nil, err
	}
	summary := r.Summary(true)
	err = finishRestore(ctx, st, keys, summary, acceptBroken)
	return summary, errors.Join(err, st.Close())
}

func importStore(ctx context.Context, c *config.Config, o Options, records iter.Seq2[*store.Record, error]) error {
	if c.DatabaseURL != "" {
		return postgres.Import(ctx, postgres.Config{URL: c.DatabaseURL.Reveal(), Dir: c.DataDir, Logger: o.Logger}, records)
	}
	return sqlite.Import(ctx, sqlite.Config{Dir: c.DataDir, Logger: o.Logger}, records)
}

// finishRestore verifies what was written and makes the store one that can be opened, in quarantine.
func finishRestore(ctx context.Context, st openedStore, keys *seal.Keyring, from *backup.Summary, acceptBroken bool) error {
	key, err := keys.AuditKey()
	if err != nil {
		return err
	}
	chain := audit.Chain(key)
	st.SetChain(chain)
	found, err := audit.New(audit.Config{Store: st, Chain: chain}).Check(ctx)
	if err != nil {
		return err
	}
	if !found.OK && !acceptBroken {
		return fmt.Errorf("restore: the audit trail in the backup is broken: %s; restore an earlier backup, or accept it with --accept-broken-audit", problem(found))
	}
	return st.Write(ctx, func(tx store.Tx) error {
		now := tx.Now()
		if err := quarantine.Put(tx, &quarantine.State{Active: true, Reason: quarantine.ReasonRestored, Since: now, Restored: &now,
			Detail: "restored from a backup of " + from.CreatedAt.UTC().Format("2006-01-02T15:04:05Z")}); err != nil {
			return err
		}
		if err := tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "system_restore", IdentityType: access.TypeSystem, IdentityID: host,
			SecretPath: "sys/restore", Success: true, ExtraData: map[string]any{"created_at": from.CreatedAt, "records": from.Records,
				"audit_ok": found.OK}}); err != nil {
			return err
		}
		return tx.PutMeta(store.RestoringKey, nil)
	})
}

// problem is what is wrong with the first broken chain.
func problem(v *api.AuditVerification) string {
	for _, c := range v.Chains {
		if !c.OK {
			return fmt.Sprintf("node %s, %s: %s", c.Node, c.FirstBroken, c.Problem)
		}
	}
	return ""
}
