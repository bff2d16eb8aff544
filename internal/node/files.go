package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/identity"
)

// bootstrapLife is how long the file with the first token lies about at most: as long as the
// token lives.
const bootstrapLife = 24 * time.Hour

// tokenFile is DATA_DIR/bootstrap-token: an administrator's token for who can read the host's
// files. It is erased at the token's first use, and after 24 hours.
type tokenFile struct {
	path string
	log  *slog.Logger
}

func newTokenFile(dir string, log *slog.Logger) *tokenFile {
	return &tokenFile{path: filepath.Join(dir, "bootstrap-token"), log: log}
}

// write puts the token there in one piece, in place of a former one.
func (f *tokenFile) write(t *identity.AdminToken) error {
	if err := folder.Replace(f.path, t.Text.Reveal()+"\n"); err != nil {
		return fmt.Errorf("write the bootstrap token: %w", err)
	}
	f.log.Info("bootstrap token written", "file", f.path, "expires_at", t.ExpiresAt)
	return nil
}

// remove erases it. Safe when it is gone.
func (f *tokenFile) remove() {
	err := os.Remove(f.path)
	switch {
	case err == nil:
		f.log.Info("bootstrap token erased", "file", f.path)
	case !errors.Is(err, fs.ErrNotExist):
		f.log.Error("erase the bootstrap token: remove the file by hand", "file", f.path, "error", err)
	}
}

// run erases the file when it is too old, until ctx ends.
func (f *tokenFile) run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if info, err := os.Stat(f.path); err == nil && time.Since(info.ModTime()) > bootstrapLife {
			f.remove()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
