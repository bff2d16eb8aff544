package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	driver "modernc.org/sqlite"
)

// Peek reads a small value of the store in the folder without opening the store: nothing is made
// or migrated, no epoch begins. A node so finds out whether it has the right key before it changes
// anything. The value is nil when there is none, exists false when there is no store.
func Peek(ctx context.Context, dir, key string) (value []byte, exists bool, err error) {
	file, err := filepath.Abs(filepath.Join(dir, dataFile))
	if err != nil {
		return nil, false, fmt.Errorf("look at store: %w", err)
	}
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look at store: %w", err)
	}
	q := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	connector, err := driver.NewConnector((&url.URL{Scheme: "file", Path: file, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, true, fmt.Errorf("look at store: %w", err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	err = db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) || err != nil && strings.Contains(err.Error(), "no such table") {
		return nil, true, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("look at store: %w", err)
	}
	return value, true, nil
}
