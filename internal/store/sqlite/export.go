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
	e := &exporter{reader: &reader{conn: c, node: s.node, epoch: s.epoch}, emit: func(r *store.Record) error {
		select {
		case <-s.closed:
			return commit.ErrClosed()
		case <-ctx.Done():
			return ctx.Err()
		default:
			return fn(r)
		}
	}}
	return e.run(s.installation)
}

// exporter reads tables in the order of their keys, a page at a time.
type exporter struct {
	*reader
	emit func(r *store.Record) error
}

func (e *exporter) run(installation string) error {
	nodes, err := e.state(installation)
	if err != nil {
		return err
	}
	for _, table := range []func() error{e.metas, e.allObjects, e.allSecrets, e.allVersions, e.allLeases, e.allFences} {
		if err := table(); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := e.chain(n.ID); err != nil {
			return err
		}
	}
	return nil
}

func (e *exporter) state(installation string) ([]store.NodeState, error) {
	n := store.NodeState{ID: e.node, Epoch: e.epoch}
	st := &store.State{Installation: installation}
	if _, err := e.conn.one("SELECT config_rev, audit_base_seq, audit_base_mac FROM store_state", nil,
		&st.ConfigRev, &n.BaseSeq, &n.BaseMAC); err != nil {
		return nil, err
	}
	n.LastSeq, n.LastMAC = n.BaseSeq, n.BaseMAC
	if _, err := e.conn.one("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1", nil, &n.LastSeq, &n.LastMAC); err != nil {
		return nil, err
	}
	former, err := e.formerNodes()
	st.Nodes = append(former, n)
	if err != nil {
		return nil, err
	}
	return st.Nodes, e.emit(&store.Record{State: st})
}

func (e *exporter) metas() error {
	return store.InPages(func(last *store.MetaValue) (page []*store.MetaValue, err error) {
		err = e.conn.each("SELECT key, value FROM meta WHERE key > ? ORDER BY key LIMIT ?", []any{last.Key, store.PageSize},
			func(scan scanFunc) error {
				m := &store.MetaValue{}
				page = append(page, m)
				return scan(&m.Key, &m.Value)
			})
		return page, err
	}, func(m *store.MetaValue) error { return e.emit(&store.Record{Meta: m}) })
}

func (e *exporter) allObjects() error {
	return store.InPages(func(last *store.Object) ([]*store.Object, error) {
		return e.objects("(tenant, kind, id) > (?, ?, ?) ORDER BY tenant, kind, id LIMIT ?",
			last.Tenant, string(last.Kind), last.ID, store.PageSize)
	}, func(o *store.Object) error { return e.emit(&store.Record{Object: o}) })
}

func (e *exporter) allSecrets() error {
	return store.InPages(func(last *store.Secret) ([]*store.Secret, error) {
		return e.secrets("(tenant, path) > (?, ?) ORDER BY tenant, path LIMIT ?", last.Tenant, last.Path, store.PageSize)
	}, func(s *store.Secret) error { return e.emit(&store.Record{Secret: s}) })
}

func (e *exporter) allVersions() error {
	return store.InPages(func(last *store.SecretVersion) ([]*store.SecretVersion, error) {
		return e.versions("sealed", "(tenant, path, version) > (?, ?, ?) ORDER BY tenant, path, version LIMIT ?",
			last.Tenant, last.Path, last.Version, store.LargePage)
	}, func(v *store.SecretVersion) error { return e.emit(&store.Record{Version: v}) })
}

func (e *exporter) allLeases() error {
	return store.InPages(func(last *store.Lease) ([]*store.Lease, error) {
		return e.leases(true, "WHERE id > ? ORDER BY id LIMIT ?", last.ID, store.PageSize)
	}, func(l *store.Lease) error { return e.emit(&store.Record{Lease: l}) })
}

func (e *exporter) allFences() error {
	return store.InPages(func(last *store.Fence) ([]*store.Fence, error) {
		return e.fences("WHERE (tenant, seq) > (?, ?) ORDER BY tenant, seq LIMIT ?", last.Tenant, last.Seq, store.PageSize)
	}, func(f *store.Fence) error { return e.emit(&store.Record{Fence: f}) })
}

func (e *exporter) chain(node string) error {
	return store.InPages(func(last *store.AuditRow) ([]*store.AuditRow, error) {
		return e.AuditChain(node, last.Seq+1, store.PageSize)
	}, func(a *store.AuditRow) error {
		return e.emit(&store.Record{Audit: &store.ChainEntry{Node: a.Node, Seq: a.Seq, Tenant: a.Tenant, Raw: a.Raw, MAC: a.MAC}})
	})
}
