package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// migrations are forward only, and each leaves the previous release working: what is no longer
// needed goes one release later. Nodes of both releases may so run on one store.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to this release's, one node at a time. A schema of a newer release
// is refused: what it means is not known here, and nothing is changed.
func migrate(ctx context.Context, cfg *pgx.ConnConfig) (err error) {
	cfg = cfg.Copy()
	for _, limit := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		cfg.RuntimeParams[limit] = "0" // a migration takes as long as it takes, and waits for another node's
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	c, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("migrate store: %w", reason(err))
	}
	defer c.Close()
	// Of the session: it ends with it, however it ends.
	if _, err := c.ExecContext(ctx, "SELECT pg_advisory_lock($1)", lockKey("migrate")); err != nil {
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
		return fmt.Errorf("open store: its schema (%d) is of a newer release than this one (%d); start that release again", have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate store: %w", err)
	}
	return nil
}
