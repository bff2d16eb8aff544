package main

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/statement"
)

// direct is the client that ScaiVault is measured against: the same root sends
// the same work straight to PostgreSQL, one connection per caller, and nothing
// is recorded, checked or promised to anybody.
type direct struct {
	source *source
	group  string
	conns  []*pgconn.PgConn
}

const (
	directPrefix = "v_direct_"
	// batchSize is how many accounts are killed in one transaction.
	batchSize = 100
	// batchConns is how many connections kill batches at the same time.
	batchConns = 4
	// lockGrants keeps GRANTs on the same objects apart, which otherwise fail.
	lockGrants = "SELECT pg_advisory_xact_lock(7)"
)

func newDirect(ctx context.Context, s *source, group string, conns int) (d *direct, err error) {
	d = &direct{source: s, group: group}
	d.conns, err = s.asRoot(ctx, conns)
	return d, err
}

func (d *direct) close() {
	for _, c := range d.conns {
		_ = c.Close(context.Background()) // the server goes anyway
	}
}

func newName() string { return directPrefix + strings.ToLower(rand.Text()[:16]) }

// verifier is a fresh password's, as each credential needs.
func verifier(iterations int) string {
	return statement.ScramSHA256(statement.Password(nil), iterations, nil)
}

// create is the one statement that makes a member of the group, as the engine
// sends it.
func (d *direct) create(name, verifier string) string {
	until := statement.QuoteLiteral(time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))
	if d.source.way == postgresql.SetupDefiner {
		return "SELECT scaivault.create_account('" + name + "', '" + verifier + "', " + until + ", '" + d.group + "', 'scaivault:" + name + ":direct', false)"
	}
	return "CREATE ROLE " + name + " LOGIN PASSWORD '" + verifier + "' VALID UNTIL " + until + " IN ROLE " + d.group
}

// issue makes credentials, one message each.
func (d *direct) issue(iterations int) task {
	return func(ctx context.Context, caller int) error {
		return send(ctx, d.conns[caller], d.create(newName(), verifier(iterations)))
	}
}

// stock makes n accounts as fast as can be: they are there to be killed. With
// grants they get rights on every table directly.
func (d *direct) stock(ctx context.Context, n int, grants bool) ([]string, error) {
	names, some := make([]string, n), verifier(1)
	for i := range names {
		names[i] = newName()
	}
	slices.Sort(names)
	for batch := range slices.Chunk(names, batchSize) {
		var statements []string
		for _, name := range batch {
			statements = append(statements, d.create(name, some))
		}
		if grants {
			statements = append(statements, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+strings.Join(batch, ", "))
		}
		if err := send(ctx, d.conns[0], statements...); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// kill is the thorough end of accounts, in three messages: no login, committed;
// no session, nothing owned, no prepared transaction; no account.
func (d *direct) kill(ctx context.Context, c *pgconn.PgConn, names []string, grants bool) error {
	functions := d.source.way == postgresql.SetupDefiner
	var disable, oids, literals []string
	for _, name := range names {
		literals = append(literals, "'"+name+"'")
		oids = append(oids, "'"+name+"'::regrole")
		if !functions {
			disable = append(disable, "ALTER ROLE "+name+" NOLOGIN PASSWORD NULL", "GRANT "+name+" TO CURRENT_USER")
		}
	}
	oidList, literalList, list := strings.Join(oids, ", "), strings.Join(literals, ", "), strings.Join(names, ", ")
	if functions {
		disable = []string{"SELECT scaivault.disable_accounts(ARRAY[" + literalList + "])"}
	}
	if err := send(ctx, c, disable...); err != nil {
		return err
	}
	if err := send(ctx, c,
		"SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usesysid IN ("+oidList+")",
		"SELECT dbid, deptype FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid IN ("+oidList+")",
		"SELECT gid, database FROM pg_prepared_xacts WHERE owner IN ("+literalList+")"); err != nil {
		return err
	}
	switch {
	case functions:
		return send(ctx, c, "SELECT scaivault.drop_accounts(ARRAY["+literalList+"])")
	case grants:
		return send(ctx, c, lockGrants, "DROP OWNED BY "+list, "DROP ROLE "+list)
	default:
		return send(ctx, c, "DROP ROLE "+list)
	}
}

// killBare is the least that a CREATEROLE root can get away with: one message,
// and whoever is logged in stays.
func (d *direct) killBare(ctx context.Context, c *pgconn.PgConn, names []string) error {
	var statements []string
	for _, name := range names {
		statements = append(statements, "GRANT "+name+" TO CURRENT_USER")
	}
	list := strings.Join(names, ", ")
	return send(ctx, c, append(statements, "DROP OWNED BY "+list, "DROP ROLE "+list)...)
}

// killer is kill or killBare.
type killer func(ctx context.Context, c *pgconn.PgConn, names []string) error

// revoke kills a stock of accounts one by one.
func (d *direct) revoke(callers, n int, kill killer) side {
	return func(ctx context.Context) (sample, error) {
		names, err := d.stock(ctx, n, false)
		if err != nil {
			return sample{}, err
		}
		next := handOut(names)
		return times(ctx, callers, n, func(ctx context.Context, caller int) error {
			return kill(ctx, d.conns[caller], []string{next()})
		})
	}
}

// revokeAll kills a stock of accounts in batches; each account counts, and the
// time is that of all.
func (d *direct) revokeAll(n int, grants bool, kill killer) side {
	return func(ctx context.Context) (sample, error) {
		names, err := d.stock(ctx, n, grants)
		if err != nil {
			return sample{}, err
		}
		next := handOut(slices.Collect(slices.Chunk(names, batchSize)))
		s, err := times(ctx, batchConns, (n+batchSize-1)/batchSize, func(ctx context.Context, caller int) error {
			return kill(ctx, d.conns[caller], next())
		})
		s.latencies = make([]time.Duration, n)
		return s, err
	}
}

// handOut gives each item to one caller.
func handOut[T any](items []T) func() T {
	var mu sync.Mutex
	return func() T {
		mu.Lock()
		defer mu.Unlock()
		item := items[0]
		items = items[1:]
		return item
	}
}
