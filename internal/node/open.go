package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// openStore opens the store with the key that its data were sealed by. Where it finds data and no
// key, or another one, it changes nothing.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (*sqlite.Store, *seal.File, *seal.Keyring, error) {
	key, err := openKey(ctx, c, log)
	if err != nil {
		return nil, nil, nil, err
	}
	st, err := sqlite.Open(ctx, sqlite.Config{Dir: c.DataDir, Logger: log})
	if err != nil {
		return nil, nil, nil, err
	}
	keys, err := openKeyring(ctx, st, key)
	if err != nil {
		return nil, nil, nil, errors.Join(err, st.Close())
	}
	return st, key, keys, nil
}

// openKey finds the root key, and makes one together with an empty store.
func openKey(ctx context.Context, c *config.Config, log *slog.Logger) (*seal.File, error) {
	keyring, exists, err := sqlite.Peek(ctx, c.DataDir, seal.MetaKey)
	if err != nil {
		return nil, err
	}
	key, err := seal.OpenFile(c.SealKeyFile)
	if errors.Is(err, seal.ErrNoKey) {
		if exists {
			return nil, fmt.Errorf("open the store in %s: its data were sealed by a key that is not at %s; bring the key file back, or set SEAL_KEY_FILE", c.DataDir, c.SealKeyFile)
		}
		if key, err = seal.CreateFile(c.SealKeyFile, rand.Reader); err == nil {
			log.Info("seal key made: keep a copy of the file in a safe place, without it the data are lost", "file", c.SealKeyFile)
		}
	}
	if err != nil {
		return nil, err
	}
	if keyring != nil {
		if err := seal.Check(ctx, key, keyring); err != nil {
			return nil, err
		}
	}
	if within, err := sameFolder(c.SealKeyFile, c.DataDir); err == nil && within {
		log.Warn("the seal key lies beside the data: who copies the folder has both; move it to another disk and set SEAL_KEY_FILE",
			"file", c.SealKeyFile)
	}
	return key, nil
}

func openKeyring(ctx context.Context, st *sqlite.Store, key *seal.File) (*seal.Keyring, error) {
	keys, err := seal.Open(ctx, st, key)
	if err != nil {
		return nil, err
	}
	auditKey, err := keys.AuditKey()
	if err != nil {
		return nil, err
	}
	st.SetChain(audit.Chain(auditKey))
	return keys, nil
}

func sameFolder(file, dir string) (bool, error) {
	a, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return false, err
	}
	b, err := filepath.Abs(dir)
	return a == b, err
}
