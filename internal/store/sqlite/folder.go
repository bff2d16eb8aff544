package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/scaivault/scaivault/internal/folder"
)

const dataFile = "scaivault.db"

// openFolder takes the data folder and makes the database file (0600; its WAL takes the same mode)
// where absent.
func openFolder(ctx context.Context, cfg Config) (*folder.Folder, error) {
	f, err := folder.Open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.importing {
		if err := discard(ctx, f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := makeData(f.Path(dataFile)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// makeData makes the database file before SQLite would, with a mode of our own, and makes its
// name durable: without that a power loss could take the file with all that was acknowledged.
func makeData(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("make database file private: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("make database file: %w", err)
	}
	return errors.Join(file.Close(), folder.Sync(filepath.Dir(path)))
}
