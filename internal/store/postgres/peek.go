package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Peek reads a small value of the store without opening it: nothing is made or migrated, no epoch
// begins. A node so finds out whether it has the right key before it changes anything. The value is
// nil when there is none, exists false when the store holds no data.
func Peek(ctx context.Context, url, key string) (value []byte, exists bool, err error) {
	cfg, err := poolConfig(url)
	if err != nil {
		return nil, false, err
	}
	c, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, false, fmt.Errorf("look at store (DATABASE_URL): %w", reason(err))
	}
	defer c.Close(ctx)
	var made bool
	if err := c.QueryRow(ctx, "SELECT to_regclass('store_state') IS NOT NULL").Scan(&made); err != nil || !made {
		return nil, false, reason(err)
	}
	err = c.QueryRow(ctx, "SELECT value FROM meta WHERE key = $1", key).Scan(&value)
	if err == nil {
		return value, true, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return nil, true, fmt.Errorf("look at store: %w", reason(err))
	}
	err = c.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM audit)").Scan(&exists)
	return nil, exists, reason(err)
}
