// Package folder is the data folder of a process: held against every other one, and files in it that
// are there whole or not at all, also after a power loss.
package folder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const lockFile = "scaivault.lock"

// Folder is a data folder that this process has.
type Folder struct {
	dir  string
	lock *os.File
}

// Open makes the folder (0700) where absent and takes its lock, which ends with the process,
// however it ends. It fails at once where another process has it.
func Open(dir string) (*Folder, error) {
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
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("open data folder %s: another process uses it; stop that one, or give this one a folder of its own", dir)
		}
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	return &Folder{dir: dir, lock: lock}, nil
}

// Path is the full path of a file in the folder.
func (f *Folder) Path(name string) string { return filepath.Join(f.dir, name) }

// Close gives the lock back in so many words: it belongs to the open file, of which a child that has
// been forked and not yet executed holds a duplicate, so closing ours alone might keep it.
func (f *Folder) Close() error {
	return errors.Join(syscall.Flock(int(f.lock.Fd()), syscall.LOCK_UN), f.lock.Close())
}

// Replace writes a file that only its owner can read (0600), durably and in one piece: at every
// moment the name leads to the former text or to the whole new one. Its folder is made (0700) where
// absent.
func Replace(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return ReplaceBy(path, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// ReplaceBy is Replace of what write writes, in a folder that exists. When write fails the name leads
// to what it did before.
func ReplaceBy(path string, write func(w io.Writer) error) error {
	return replace(path, 0o600, write)
}

// Publish is Replace of a file that everybody can read (0644), in a folder that exists.
func Publish(path string, data []byte) error {
	return replace(path, 0o644, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func replace(path string, mode os.FileMode, write func(w io.Writer) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	if err = write(temp); err == nil {
		err = temp.Chmod(mode)
	}
	if err = errors.Join(err, temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return Sync(filepath.Dir(path))
}

// Sync makes the names in a folder durable.
func Sync(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
