package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	dataFile = "scaivault.db"
	lockFile = "scaivault.lock"
)

// folder is the data folder, held against every other process.
type folder struct {
	dir  string
	lock *os.File
}

// openFolder makes the data folder (0700) and the database file (0600; its WAL takes the same
// mode) where absent, and takes the lock. The lock ends with the process, however it ends.
func openFolder(dir string) (*folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open data folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("open data folder %s: another process uses it; stop that one, or give this one a folder of its own", dir)
		}
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	f := &folder{dir: dir, lock: lock}
	if err := f.makeData(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *folder) data() string { return filepath.Join(f.dir, dataFile) }

// makeData makes the database file before SQLite would, with a mode of our own, and makes its
// name durable: without that a power loss could take the file with all that was acknowledged.
func (f *folder) makeData() error {
	file, err := os.OpenFile(f.data(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := os.Chmod(f.data(), 0o600); err != nil {
			return fmt.Errorf("make database file private: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("make database file: %w", err)
	}
	dir, err := os.Open(f.dir)
	if err != nil {
		return errors.Join(fmt.Errorf("open data folder: %w", err), file.Close())
	}
	return errors.Join(dir.Sync(), dir.Close(), file.Close())
}

// close gives the lock back in so many words: it belongs to the open file, of which a child that
// has been forked and not yet executed holds a duplicate, so closing ours alone might keep it.
func (f *folder) close() error {
	return errors.Join(syscall.Flock(int(f.lock.Fd()), syscall.LOCK_UN), f.lock.Close())
}
