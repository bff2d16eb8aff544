package sqlite

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// Import makes a store of the records of an export in an empty folder, which it leaves empty when it
// fails. Until somebody who opens the store with Config.Restored empties the value of
// [store.RestoringKey], nobody else can open it, and a further Import begins anew: one that is
// killed leaves nothing that could be taken for a store.
// A folder that holds data is refused with [store.ErrNotEmpty] and left as it is.
func Import(ctx context.Context, cfg Config, records iter.Seq2[*store.Record, error]) error {
	cfg.importing = true
	s, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	err = store.Fill(ctx, s, records)
	err = errors.Join(err, s.Close())
	if err != nil {
		err = errors.Join(err, clean(context.WithoutCancel(ctx), cfg))
	}
	return err
}

// clean leaves the folder as empty as it was before an import that failed.
func clean(ctx context.Context, cfg Config) error {
	f, err := folder.Open(cfg.Dir)
	if err != nil {
		return err
	}
	return errors.Join(discard(ctx, f), f.Close())
}

// discard removes what an import that was cut off has left in the folder.
func discard(ctx context.Context, f *folder.Folder) error {
	mark, exists, err := Peek(ctx, f.Path(""), store.RestoringKey)
	if err != nil || !exists || len(mark) == 0 {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-sum"} {
		if err := os.Remove(f.Path(dataFile) + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what an unfinished restore left: %w", err)
		}
	}
	return nil
}

// begin takes an empty store for an import. The epoch is one that no node has begun.
func (s *Store) begin(c *conn) error {
	s.installation, s.node, s.epoch = "restoring", ident.New("n"), store.RestoredEpoch(time.Now(), 0)
	if err := s.disk.sums.begin(s.epoch); err != nil {
		return err
	}
	if _, err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	n, err := c.exec("INSERT INTO store_state (one, installation, node, epoch) VALUES (1, ?, ?, ?) ON CONFLICT (one) DO NOTHING",
		s.installation, s.node, s.epoch)
	if err != nil {
		return err
	}
	if n == 0 {
		c.rollback()
		return store.ErrNotEmpty
	}
	if _, err := c.exec("INSERT INTO meta (key, value) VALUES (?, ?)", store.RestoringKey, []byte("begun")); err != nil {
		return err
	}
	_, err = c.exec("COMMIT")
	return err
}

// refuseUnfinished fails when the store is one that an import has not finished.
func refuseUnfinished(c *conn) error {
	var mark []byte
	if _, err := c.one("SELECT value FROM meta WHERE key = ?", []any{store.RestoringKey}, &mark); err != nil {
		return err
	}
	if len(mark) > 0 {
		return store.ErrRestoring
	}
	return nil
}

var _ store.Restorer = (*tx)(nil)

// RestoreState implements [store.Restorer]. Where one node wrote to the exported store, this node goes
// on as it and with its chain; else it is a new one beside the chains of them all.
func (t *tx) RestoreState(st *store.State) error {
	wrote := slices.DeleteFunc(slices.Clone(st.Nodes), func(n store.NodeState) bool { return n.LastSeq == 0 })
	if len(wrote) == 1 {
		n := wrote[0]
		t.node = n.ID
		if err := t.write("UPDATE store_state SET node = ?, epoch = max(epoch, ?), audit_base_seq = ?, audit_base_mac = ?",
			n.ID, n.Epoch, n.BaseSeq, n.BaseMAC); err != nil {
			return err
		}
	} else {
		for _, n := range wrote {
			if err := t.write("INSERT INTO former_chains (node, epoch, base_seq, base_mac) VALUES (?, ?, ?, ?)",
				n.ID, n.Epoch, n.BaseSeq, n.BaseMAC); err != nil {
				return err
			}
		}
	}
	return t.write("UPDATE store_state SET installation = ?, config_rev = ?", st.Installation, st.ConfigRev)
}

// RestoreObject implements [store.Restorer].
func (t *tx) RestoreObject(o *store.Object) error {
	return t.write("INSERT INTO objects ("+objectColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		o.Tenant, string(o.Kind), o.ID, o.Key, string(o.Doc), o.Version, o.Rev, micros(o.CreatedAt), micros(o.UpdatedAt))
}

// RestoreLease implements [store.Restorer].
func (t *tx) RestoreLease(l *store.Lease) error {
	row, err := encodeLease(l)
	if err != nil {
		return err
	}
	t.count(l.EngineID, l.Role, l.Status, 1)
	return t.write(insertLease, row...)
}

// RestoreFence implements [store.Restorer].
func (t *tx) RestoreFence(f *store.Fence) error { return t.insertFence(f) }

// RestoreAudit implements [store.Restorer].
func (t *tx) RestoreAudit(row *store.AuditRow, entry *api.AuditEntry) error {
	if row.Node != t.node {
		return t.insertFormer(row, entry)
	}
	return t.insertAudit(row, entry)
}
