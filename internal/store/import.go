package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/scaivault/scaivault/api"
)

// batchWeight is how many bytes of secrets share a transaction of an import.
const batchWeight = 1 << 20

// Restorer is a [Tx] of a store that an import fills: it writes rows as they were exported, where Tx
// would give them numbers, times and a place in the chain of its own.
type Restorer interface {
	Tx
	// RestoreState makes the store what the exported one was, its nodes in later epochs.
	RestoreState(st *State) error
	RestoreObject(o *Object) error
	RestoreLease(l *Lease) error
	RestoreFence(f *Fence) error
	// RestoreAudit takes the entry as far as it is legible; the row's is not set.
	RestoreAudit(row *AuditRow, entry *api.AuditEntry) error
}

// Fill writes all records to an empty store whose transactions are [Restorer], in batches of one
// transaction each. After an error some of them may be there.
func Fill(ctx context.Context, s Store, records iter.Seq2[*Record, error]) error {
	first := true
	return inBatches(records, func(batch []*Record) error {
		err := s.WriteRelaxed(ctx, func(tx Tx) error {
			for i, r := range batch {
				if (first && i == 0) != (r.State != nil) {
					return errors.New("import: the state of the store comes first, and once")
				}
				if err := restore(tx.(Restorer), r); err != nil {
					return fmt.Errorf("import %s: %w", r.Kind(), err)
				}
			}
			return nil
		})
		first = false
		return err
	})
}

func restore(tx Restorer, r *Record) error {
	switch {
	case r.State != nil:
		for i := range r.State.Nodes { // where there is no MAC it is empty; a record leaves that out
			n := &r.State.Nodes[i]
			n.BaseMAC, n.LastMAC = append([]byte{}, n.BaseMAC...), append([]byte{}, n.LastMAC...)
		}
		return tx.RestoreState(r.State)
	case r.Meta != nil:
		if r.Meta.Key == RestoringKey {
			return nil
		}
		return tx.PutMeta(r.Meta.Key, r.Meta.Value)
	case r.Object != nil:
		return tx.RestoreObject(r.Object)
	case r.Secret != nil:
		return tx.PutSecret(r.Secret)
	case r.Version != nil:
		return tx.PutSecretVersion(r.Version)
	case r.Lease != nil:
		return tx.RestoreLease(r.Lease)
	case r.Fence != nil:
		return tx.RestoreFence(r.Fence)
	case r.Audit != nil:
		row := &AuditRow{Node: r.Audit.Node, Seq: r.Audit.Seq, Tenant: r.Audit.Tenant, Raw: r.Audit.Raw, MAC: r.Audit.MAC}
		entry := &api.AuditEntry{}
		_ = json.Unmarshal(row.Raw, entry) // one that is not legible is named when the chain is verified
		return tx.RestoreAudit(row, entry)
	default:
		return errors.New("the record is empty")
	}
}

// inBatches hands records on in batches for one transaction each: not many, and not large.
func inBatches(records iter.Seq2[*Record, error], write func(batch []*Record) error) error {
	var batch []*Record
	weight := 0
	for r, err := range records {
		if err != nil {
			return err
		}
		batch = append(batch, r)
		if r.Version != nil {
			weight += len(r.Version.Sealed)
		}
		if len(batch) == PageSize || weight > batchWeight {
			if err := write(batch); err != nil {
				return err
			}
			batch, weight = nil, 0
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return write(batch)
}
