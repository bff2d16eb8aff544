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
	sqlite3 "modernc.org/sqlite/lib"
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
	err = peekRow(ctx, file, "SELECT value FROM meta WHERE key = ?", []any{key}, &value)
	if err == nil {
		return value, true, nil
	}
	if nothing(err) { // a store has a state from its first moment on
		err = peekRow(ctx, file, "SELECT true FROM store_state", nil, &exists)
	}
	if err != nil && !nothing(err) {
		return nil, true, fmt.Errorf("look at store: %w", err)
	}
	return nil, exists, nil
}

// peekEpoch is the epoch that the database is in; 0 for one that is not made yet.
func peekEpoch(ctx context.Context, file string) (epoch int64, err error) {
	info, err := os.Stat(file)
	if err == nil && info.Size() > 0 {
		err = peekRow(ctx, file, "SELECT epoch FROM store_state", nil, &epoch)
	}
	if err != nil && !nothing(err) {
		return 0, fmt.Errorf("look at store: %w", err)
	}
	return epoch, nil
}

// peekRow reads one row through a connection that changes nothing.
func peekRow(ctx context.Context, file, query string, args []any, dest ...any) error {
	q := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	connector, err := driver.NewConnector((&url.URL{Scheme: "file", Path: file, RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	return db.QueryRowContext(ctx, query, args...).Scan(dest...)
}

// nothing tells whether an error says that the row, or its table, is not there yet. A database with a
// journal to be rolled back is one whose making was cut off before it got its WAL.
func nothing(err error) bool {
	var failed *driver.Error
	unmade := errors.As(err, &failed) && failed.Code() == sqlite3.SQLITE_READONLY_ROLLBACK
	return unmade || errors.Is(err, sql.ErrNoRows) || strings.Contains(err.Error(), "no such table")
}
