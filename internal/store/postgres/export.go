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
	t := &tables{&reader{session: session, node: s.node, epoch: s.epoch, recent: &recent{}}, s.installation}
	if err := session.send(statement{sql: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}); err != nil {
		return s.readFailed(ctx, err)
	}
	err = store.Walk(t, func(r *store.Record) error {
		if err := commit.Halted(ctx, s.closed); err != nil {
			return err
		}
		return fn(r)
	})
	if known := (*fault.Error)(nil); err != nil && session.failed != nil && errors.As(err, &known) {
		return s.readFailed(ctx, err)
	}
	return err
}

// tables are what an export reads; see [store.Tables].
type tables struct {
	*reader
	installation string
}

func (t *tables) State() (*store.State, error) {
	st := &store.State{Installation: t.installation}
	if _, err := t.one("SELECT config_rev FROM store_state", nil, &st.ConfigRev); err != nil {
		return nil, err
	}
	err := t.each(`SELECT n.id, n.epoch, n.audit_seq, n.audit_mac, c.base_seq, c.base_mac
		FROM nodes n JOIN chains c ON c.node = n.id ORDER BY n.id`, nil, func(scan scanFunc) error {
		n := store.NodeState{}
		err := scan(&n.ID, &n.Epoch, &n.LastSeq, &n.LastMAC, &n.BaseSeq, &n.BaseMAC)
		st.Nodes = append(st.Nodes, n)
		return err
	})
	return st, err
}

func (t *tables) MetaValues(last *store.MetaValue) (page []*store.MetaValue, err error) {
	err = t.each("SELECT key, value FROM meta WHERE key > $1 ORDER BY key LIMIT $2", []any{last.Key, store.PageSize},
		func(scan scanFunc) error {
			m := &store.MetaValue{}
			page = append(page, m)
			return scan(&m.Key, &m.Value)
		})
	return page, err
}

func (t *tables) Objects(last *store.Object) ([]*store.Object, error) {
	return t.objects("(tenant, kind, id) > ($1, $2, $3) ORDER BY tenant, kind, id LIMIT $4",
		last.Tenant, string(last.Kind), last.ID, store.PageSize)
}

func (t *tables) Secrets(last *store.Secret) (page []*store.Secret, err error) {
	var q condition
	q.and("(tenant, path) > (?, ?)", last.Tenant, last.Path)
	order := " ORDER BY tenant, path" + q.limit(store.PageSize)
	err = t.secrets(q, order, func(s *store.Secret, _ int64) { page = append(page, s) })
	return page, err
}

func (t *tables) Versions(last *store.SecretVersion) ([]*store.SecretVersion, error) {
	return t.versions("sealed", "(tenant, path, version) > ($1, $2, $3) ORDER BY tenant, path, version LIMIT $4",
		last.Tenant, last.Path, last.Version, store.LargePage)
}

func (t *tables) Leases(last *store.Lease) ([]*store.Lease, error) {
	return t.leases("WHERE id > $1 ORDER BY id LIMIT $2", last.ID, store.PageSize)
}

func (t *tables) Fences(last *store.Fence) ([]*store.Fence, error) {
	return t.fencesOf("(tenant, seq) > ($1, $2) ORDER BY tenant, seq LIMIT $3", last.Tenant, last.Seq, store.PageSize)
}
