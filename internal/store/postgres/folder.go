package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/scaivault/scaivault/internal/ident"
)

const (
	nodeFile = "node-id"
	lockFile = "scaivault.lock"
)

// folder is the node's own data folder: it holds the node's id, so that a node that is started
// again is known again, and is held against every other process.
type folder struct {
	node string
	lock *os.File
}

// openFolder makes the folder (0700) and the node's id where absent, and takes the lock, which
// ends with the process, however it ends.
func openFolder(dir string) (*folder, error) {
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
	f := &folder{lock: lock}
	if f.node, err = nodeID(filepath.Join(dir, nodeFile)); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// nodeID reads the node's id, or makes one, durably and in one piece.
func nodeID(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(text))
		if !ident.Valid("n", id) {
			return "", fmt.Errorf("read %s: this is no node's id; remove the file, and the node becomes a new one", path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's id: %w", err)
	}
	id := ident.New("n")
	if err := writeFile(path, id+"\n"); err != nil {
		return "", fmt.Errorf("write the node's id: %w", err)
	}
	return id, nil
}

func writeFile(path, text string) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	_, err = temp.WriteString(text)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f *folder) close() error { return f.lock.Close() }
