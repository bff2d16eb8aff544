package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	first := true
	err = store.InBatches(records, func(batch []*store.Record) error {
		err := s.WriteRelaxed(ctx, func(st store.Tx) error {
			for i, r := range batch {
				if (first && i == 0) != (r.State != nil) {
					return errors.New("import: the state of the store comes first, and once")
				}
				if err := st.(*tx).put(r); err != nil {
					return fmt.Errorf("import %s: %w", r.Kind(), err)
				}
			}
			return nil
		})
		first = false
		return err
	})
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

// put writes a record as it was exported.
func (t *tx) put(r *store.Record) error {
	switch {
	case r.State != nil:
		return t.putState(r.State)
	case r.Meta != nil:
		if r.Meta.Key == store.RestoringKey {
			return nil
		}
		return t.PutMeta(r.Meta.Key, r.Meta.Value)
	case r.Object != nil:
		o := r.Object
		return t.write("INSERT INTO objects ("+objectColumns+") VALUES ("+places(9)+")",
			o.Tenant, string(o.Kind), o.ID, o.Key, string(o.Doc), o.Version, o.Rev, micros(o.CreatedAt), micros(o.UpdatedAt))
	case r.Secret != nil:
		return t.PutSecret(r.Secret)
	case r.Version != nil:
		return t.PutSecretVersion(r.Version)
	case r.Lease != nil:
		row, err := encodeLease(r.Lease)
		if err != nil {
			return err
		}
		t.count(r.Lease.EngineID, r.Lease.Role, r.Lease.Status, 1)
		return t.write(insertLease, row...)
	case r.Fence != nil:
		return t.insertFence(r.Fence)
	case r.Audit != nil:
		row := &store.AuditRow{Node: r.Audit.Node, Seq: r.Audit.Seq, Tenant: r.Audit.Tenant, Raw: r.Audit.Raw, MAC: r.Audit.MAC}
		e := &api.AuditEntry{}
		_ = json.Unmarshal(row.Raw, e) // one that is not legible is named when the chain is verified
		return t.insertAudit(row, e)
	default:
		return errors.New("the record is empty")
	}
}

// putState makes the store what the exported one was, its nodes in later epochs. No node holds a
// configuration of it: all is read anew.
func (t *tx) putState(st *store.State) error {
	if err := t.write("UPDATE store_state SET installation = $1, config_rev = $2, removed_rev = $2", st.Installation, st.ConfigRev); err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if n.ID == t.node { // this is that node's folder: it goes on with its chain
			t.state.seq, t.state.mac = n.LastSeq, n.LastMAC
		}
		if err := t.write("INSERT INTO nodes (id, epoch, audit_seq, audit_mac) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
			n.ID, store.RestoredEpoch(t.now, n.Epoch), n.LastSeq, bytesOf(n.LastMAC)); err != nil {
			return err
		}
		if err := t.write("INSERT INTO chains (node, base_seq, base_mac) VALUES ($1, $2, $3) ON CONFLICT (node) DO UPDATE SET base_seq = excluded.base_seq, base_mac = excluded.base_mac",
			n.ID, n.BaseSeq, bytesOf(n.BaseMAC)); err != nil {
			return err
		}
	}
	return nil
}

func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
