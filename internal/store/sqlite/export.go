package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
)

// Export hands on all that the store holds, of one snapshot; see [store.Store]. It has a connection
// of its own, since it may last. While it does, the WAL is not folded back: it grows by what is
// written meanwhile, and shrinks again at the next commit after it.
func (s *Store) Export(ctx context.Context, fn func(r *store.Record) error) (err error) {
	c, err := s.connect(ctx, "cache_size(-2048)", "query_only(1)")
	if err != nil {
		return unavailable(fmt.Errorf("open store for an export: %w", err))
	}
	defer func() {
		c.rollback()
		err = errors.Join(err, c.close())
	}()
	if _, err := c.exec("BEGIN"); err != nil {
		return err
	}
	t := &tables{&reader{conn: c, node: s.node, epoch: s.epoch}, s.installation}
	return store.Walk(t, func(r *store.Record) error {
		if err := commit.Halted(ctx, s.closed); err != nil {
			return err
		}
		return fn(r)
	})
}

// tables are what an export reads; see [store.Tables].
type tables struct {
	*reader
	installation string
}

func (t *tables) State() (*store.State, error) {
	n := store.NodeState{ID: t.node, Epoch: t.epoch}
	st := &store.State{Installation: t.installation}
	if _, err := t.conn.one("SELECT config_rev, audit_base_seq, audit_base_mac FROM store_state", nil,
		&st.ConfigRev, &n.BaseSeq, &n.BaseMAC); err != nil {
		return nil, err
	}
	n.LastSeq, n.LastMAC = n.BaseSeq, n.BaseMAC
	if _, err := t.conn.one("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1", nil, &n.LastSeq, &n.LastMAC); err != nil {
		return nil, err
	}
	former, err := t.formerNodes()
	st.Nodes = append(former, n)
	return st, err
}

func (t *tables) MetaValues(last *store.MetaValue) (page []*store.MetaValue, err error) {
	err = t.conn.each("SELECT key, value FROM meta WHERE key > ? ORDER BY key LIMIT ?", []any{last.Key, store.PageSize},
		func(scan scanFunc) error {
			m := &store.MetaValue{}
			page = append(page, m)
			return scan(&m.Key, &m.Value)
		})
	return page, err
}

func (t *tables) Objects(last *store.Object) ([]*store.Object, error) {
	return t.objects("(tenant, kind, id) > (?, ?, ?) ORDER BY tenant, kind, id LIMIT ?",
		last.Tenant, string(last.Kind), last.ID, store.PageSize)
}

func (t *tables) Secrets(last *store.Secret) ([]*store.Secret, error) {
	return t.secrets("(tenant, path) > (?, ?) ORDER BY tenant, path LIMIT ?", last.Tenant, last.Path, store.PageSize)
}

func (t *tables) Versions(last *store.SecretVersion) ([]*store.SecretVersion, error) {
	return t.versions("sealed", "(tenant, path, version) > (?, ?, ?) ORDER BY tenant, path, version LIMIT ?",
		last.Tenant, last.Path, last.Version, store.LargePage)
}

func (t *tables) Leases(last *store.Lease) ([]*store.Lease, error) {
	return t.leases(true, "WHERE id > ? ORDER BY id LIMIT ?", last.ID, store.PageSize)
}

func (t *tables) Fences(last *store.Fence) ([]*store.Fence, error) {
	return t.fences("WHERE (tenant, seq) > (?, ?) ORDER BY tenant, seq LIMIT ?", last.Tenant, last.Seq, store.PageSize)
}
