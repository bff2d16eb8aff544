package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// migrations are forward only, and each leaves the previous release working: what is no longer
// needed goes one release later. Nodes of both releases may so run on one store.
//
//go:embed migrations/*.sql
var migrations embed.FS

// oldestServed is the schema of the oldest release that works on this one's. A migration that takes
// away what that release needs raises it.
const oldestServed = 1

// lockEvery is how often a node that waits for another one's migration asks whether it is done.
const lockEvery = 100 * time.Millisecond

// migrate brings the schema up to this release's, one node at a time. A schema of a newer release
// is left as it is, and refused unless that release has said that it serves this one, too.
func migrate(ctx context.Context, cfg *pgx.ConnConfig) (err error) {
	cfg = cfg.Copy()
	for _, limit := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		cfg.RuntimeParams[limit] = "0" // a migration takes as long as it takes, and waits for another node's
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("migrate store: %w", reason(err))
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if err := lockMigrations(ctx, c); err != nil {
		return fmt.Errorf("migrate store: wait for another node: %w", reason(err))
	}

	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have > want {
		return served(ctx, c, have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate store: %w", err)
	}
	if _, err := c.Exec(ctx, fmt.Sprintf("COMMENT ON TABLE goose_db_version IS '"+servesText+"'", oldestServed)); err != nil {
		return fmt.Errorf("migrate store: say which releases it serves: %w", reason(err))
	}
	return nil
}

// lockMigrations takes the lock of all migrations, for the session: it ends with it, however it
// ends. It asks again and again: a statement that waits holds a snapshot, and an index that is built
// beside other work waits for every snapshot.
func lockMigrations(ctx context.Context, c *pgx.Conn) error {
	for {
		var free bool
		if err := c.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockKey("migrate")).Scan(&free); err != nil || free {
			return err
		}
		select {
		case <-time.After(lockEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// servesText is how a release says on its schema which others it serves.
const servesText = "serves releases from schema %d on"

// served refuses a schema of a newer release that does not serve this one: what it means is not
// known here.
func served(ctx context.Context, c *pgx.Conn, have, want int64) error {
	var text string
	if err := c.QueryRow(ctx, "SELECT coalesce(obj_description('goose_db_version'::regclass), '')").Scan(&text); err != nil {
		return fmt.Errorf("open store: which releases it serves: %w", reason(err))
	}
	var oldest int64
	if _, err := fmt.Sscanf(text, servesText, &oldest); err != nil || oldest > want {
		return fmt.Errorf("open store: its schema (%d) is of a newer release, which does not serve this one (%d) any more; start that release again", have, want)
	}
	return nil
}
