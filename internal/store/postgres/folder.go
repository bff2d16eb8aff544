package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/ident"
)

const nodeFile = "node-id"

// openFolder takes the node's own data folder, which holds the node's id, so that a node that is
// started again is known again.
func openFolder(dir string) (f *folder.Folder, node string, err error) {
	if f, err = folder.Open(dir); err != nil {
		return nil, "", err
	}
	if node, err = nodeID(f.Path(nodeFile)); err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	return f, node, nil
}

// nodeID reads the node's id, or makes one.
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
	if err := folder.Replace(path, id+"\n"); err != nil {
		return "", fmt.Errorf("write the node's id: %w", err)
	}
	return id, nil
}
