package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// migrations are forward only, and each leaves the previous release working: what is no longer
// needed goes one release later.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to this release's. A schema of a newer release is refused: what it
// means is not known here, and nothing is changed.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
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
