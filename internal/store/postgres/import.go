package postgres

import (
	"context"
	"errors"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// truncate empties all tables of the store.
const truncate = `TRUNCATE store_state, nodes, beats, meta, objects, removed_objects, leases, lease_counts,
	fences, secrets, secret_versions, audit, chains RESTART IDENTITY`

// Import makes a store of the records of an export in an empty database, which it leaves empty when
// it fails. Until somebody who opens the store with Config.Restored empties the value of
// [store.RestoringKey], nobody else can open it, and a further Import begins anew: one that is
// killed leaves nothing that could be taken for a store.
// A database that holds a store is refused with [store.ErrNotEmpty] and left as it is.
func Import(ctx context.Context, cfg Config, records iter.Seq2[*store.Record, error]) error {
	cfg.importing = true
	s, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	err = store.Fill(ctx, s, records)
	if err != nil {
		err = errors.Join(err, s.clean(context.WithoutCancel(ctx)))
	}
	return errors.Join(err, s.Close())
}

// clean leaves the database as empty as it was before an import that failed.
func (s *Store) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, groupTime)
	defer cancel()
	_, err := s.pool.Exec(ctx, truncate)
	return reason(err)
}

// begin takes an empty database for an import, or one that an import which was cut off has left. One
// that still runs elsewhere has the lock.
func (s *Store) begin(ctx context.Context) error {
	held, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	s.importing = held.Hijack() // the lock is the session's, and ends with it
	var free bool
	if err := s.importing.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockKey("import")).Scan(&free); err != nil {
		return err
	}
	if !free {
		return errors.New("another restore into this database is under way")
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		unfinished, err := isUnfinished(ctx, tx)
		if err != nil {
			return err
		}
		if unfinished {
			if _, err := tx.Exec(ctx, truncate); err != nil {
				return err
			}
		}
		tag, err := tx.Exec(ctx, "INSERT INTO store_state (installation) VALUES ('restoring') ON CONFLICT (one) DO NOTHING")
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return store.ErrNotEmpty
		}
		if _, err := tx.Exec(ctx, "INSERT INTO meta (key, value) VALUES ($1, 'begun')", store.RestoringKey); err != nil {
			return err
		}
		s.installation = "restoring"
		if err := tx.QueryRow(ctx, "INSERT INTO nodes (id, epoch) VALUES ($1, "+clock+" / 1000000) RETURNING epoch", s.node).Scan(&s.epoch); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO chains (node) VALUES ($1)", s.node)
		return err
	})
}

func isUnfinished(ctx context.Context, tx pgx.Tx) (bool, error) {
	var mark []byte
	err := tx.QueryRow(ctx, "SELECT value FROM meta WHERE key = $1", store.RestoringKey).Scan(&mark)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return len(mark) > 0, err
}

var _ store.Restorer = (*tx)(nil)

// RestoreState implements [store.Restorer]. No node holds a configuration of the store: all is read
// anew.
func (t *tx) RestoreState(st *store.State) error {
	if err := t.write("UPDATE store_state SET installation = $1, config_rev = $2, removed_rev = $2", st.Installation, st.ConfigRev); err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if n.ID == t.node { // this is that node's folder: it goes on with its chain
			t.state.seq, t.state.mac = n.LastSeq, n.LastMAC
		}
		if err := t.write("INSERT INTO nodes (id, epoch, audit_seq, audit_mac) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
			n.ID, store.RestoredEpoch(t.now, n.Epoch), n.LastSeq, n.LastMAC); err != nil {
			return err
		}
		if err := t.write("INSERT INTO chains (node, base_seq, base_mac) VALUES ($1, $2, $3) ON CONFLICT (node) DO UPDATE SET base_seq = excluded.base_seq, base_mac = excluded.base_mac",
			n.ID, n.BaseSeq, n.BaseMAC); err != nil {
			return err
		}
	}
	return nil
}

// RestoreObject implements [store.Restorer].
func (t *tx) RestoreObject(o *store.Object) error {
	return t.write("INSERT INTO objects ("+objectColumns+") VALUES ("+places(9)+")",
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
	return t.insertAudit(row, entry)
}
