package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
)

// exportIdle is how long an export may be kept waiting by who takes its records.
const exportIdle = 2 * time.Minute

// Export hands on all that the store holds, of one snapshot; see [store.Store]. It has a connection
// of its own, since it may last. While it does, the server keeps row versions that it could remove.
func (s *Store) Export(ctx context.Context, fn func(r *store.Record) error) error {
	cfg := s.pool.Config().ConnConfig
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint(exportIdle.Milliseconds())
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return s.readFailed(ctx, err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	// The view stays as it is: the configuration is read like everything else.
	session := &session{ctx: ctx, conn: c}
	e := &exporter{reader: &reader{session: session, node: s.node, epoch: s.epoch, recent: &recent{}}, emit: func(r *store.Record) error {
		select {
		case <-s.closed:
			return commit.ErrClosed()
		case <-ctx.Done():
			return ctx.Err()
		default:
			return fn(r)
		}
	}}
	if err := session.send(statement{sql: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}); err != nil {
		return s.readFailed(ctx, err)
	}
	err = e.run(s.installation)
	if known := (*fault.Error)(nil); err != nil && session.failed != nil && errors.As(err, &known) {
		return s.readFailed(ctx, err)
	}
	return err
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
	st := &store.State{Installation: installation}
	if _, err := e.one("SELECT config_rev FROM store_state", nil, &st.ConfigRev); err != nil {
		return nil, err
	}
	err := e.each(`SELECT n.id, n.epoch, n.audit_seq, n.audit_mac, c.base_seq, c.base_mac
		FROM nodes n JOIN chains c ON c.node = n.id ORDER BY n.id`, nil, func(scan scanFunc) error {
		n := store.NodeState{}
		err := scan(&n.ID, &n.Epoch, &n.LastSeq, &n.LastMAC, &n.BaseSeq, &n.BaseMAC)
		st.Nodes = append(st.Nodes, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return st.Nodes, e.emit(&store.Record{State: st})
}

func (e *exporter) metas() error {
	return store.InPages(func(last *store.MetaValue) (page []*store.MetaValue, err error) {
		err = e.each("SELECT key, value FROM meta WHERE key > $1 ORDER BY key LIMIT $2", []any{last.Key, store.PageSize},
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
		return e.objects("(tenant, kind, id) > ($1, $2, $3) ORDER BY tenant, kind, id LIMIT $4",
			last.Tenant, string(last.Kind), last.ID, store.PageSize)
	}, func(o *store.Object) error { return e.emit(&store.Record{Object: o}) })
}

func (e *exporter) allSecrets() error {
	return store.InPages(func(last *store.Secret) (page []*store.Secret, err error) {
		var q condition
		q.and("(tenant, path) > (?, ?)", last.Tenant, last.Path)
		order := " ORDER BY tenant, path" + q.limit(store.PageSize)
		err = e.secrets(q, order, func(s *store.Secret, _ int64) { page = append(page, s) })
		return page, err
	}, func(s *store.Secret) error { return e.emit(&store.Record{Secret: s}) })
}

func (e *exporter) allVersions() error {
	return store.InPages(func(last *store.SecretVersion) ([]*store.SecretVersion, error) {
		return e.versions("sealed", "(tenant, path, version) > ($1, $2, $3) ORDER BY tenant, path, version LIMIT $4",
			last.Tenant, last.Path, last.Version, store.LargePage)
	}, func(v *store.SecretVersion) error { return e.emit(&store.Record{Version: v}) })
}

func (e *exporter) allLeases() error {
	return store.InPages(func(last *store.Lease) ([]*store.Lease, error) {
		return e.leases("WHERE id > $1 ORDER BY id LIMIT $2", last.ID, store.PageSize)
	}, func(l *store.Lease) error { return e.emit(&store.Record{Lease: l}) })
}

func (e *exporter) allFences() error {
	return store.InPages(func(last *store.Fence) ([]*store.Fence, error) {
		return e.fencesOf("(tenant, seq) > ($1, $2) ORDER BY tenant, seq LIMIT $3", last.Tenant, last.Seq, store.PageSize)
	}, func(f *store.Fence) error { return e.emit(&store.Record{Fence: f}) })
}

func (e *exporter) chain(node string) error {
	return store.InPages(func(last *store.AuditRow) ([]*store.AuditRow, error) {
		return e.AuditChain(node, last.Seq+1, store.PageSize)
	}, func(a *store.AuditRow) error {
		return e.emit(&store.Record{Audit: &store.ChainEntry{Node: a.Node, Seq: a.Seq, Tenant: a.Tenant, Raw: a.Raw, MAC: a.MAC}})
	})
}
