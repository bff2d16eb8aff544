package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/postgres"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// openedStore is a store that waits for the key of its audit chain, which lies in itself.
type openedStore interface {
	store.Store
	SetChain(chain store.Chain)
}

// OpenStore opens the store of a server as the server itself does, for a tool that works on it while
// the server does not run.
func OpenStore(ctx context.Context, c *config.Config, log *slog.Logger) (store.Store, error) {
	st, _, _, err := openStore(ctx, c, log)
	return st, err
}

// openStore opens the store with the key that its data were sealed by. Where it finds data and no
// key, or another one, it changes nothing.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (store.Store, *seal.File, *seal.Keyring, error) {
	key, made, err := openKey(ctx, c, log)
	if err != nil {
		return nil, nil, nil, err
	}
	st, err := openKind(ctx, c, log, false)
	if err != nil {
		return nil, nil, nil, err
	}
	keys, err := openKeyring(ctx, st, key)
	if made && errors.Is(err, seal.ErrOtherKey) { // another node has made the store since we looked: this key opens nothing
		err = errors.Join(err, os.Remove(c.SealKeyFile))
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, st.Close())
	}
	return st, key, keys, nil
}

// openKind opens the store that the configuration names; restored, one whose restore is not finished.
func openKind(ctx context.Context, c *config.Config, log *slog.Logger, restored bool) (openedStore, error) {
	if c.DatabaseURL != "" {
		return postgres.Open(ctx, postgres.Config{URL: c.DatabaseURL.Reveal(), Dir: c.DataDir, Logger: log, Restored: restored})
	}
	return sqlite.Open(ctx, sqlite.Config{Dir: c.DataDir, Logger: log, Restored: restored})
}

// peek looks for a store's keyring without changing anything; exists tells whether there are data.
func peek(ctx context.Context, c *config.Config) (keyring []byte, exists bool, err error) {
	if c.DatabaseURL != "" {
		return postgres.Peek(ctx, c.DatabaseURL.Reveal(), seal.MetaKey)
	}
	return sqlite.Peek(ctx, c.DataDir, seal.MetaKey)
}

// place names the store for a person.
func place(c *config.Config) string {
	if c.DatabaseURL != "" {
		return "the database (DATABASE_URL)"
	}
	return c.DataDir
}

// openKey finds the root key, and makes one together with an empty store. Of a shared store every
// node is given the same one, which the first of them makes.
func openKey(ctx context.Context, c *config.Config, log *slog.Logger) (key *seal.File, made bool, err error) {
	keyring, exists, err := peek(ctx, c)
	if err != nil {
		return nil, false, err
	}
	key, err = seal.OpenFile(c.SealKeyFile)
	if errors.Is(err, seal.ErrNoKey) {
		if exists {
			return nil, false, fmt.Errorf("open the store in %s: its data were sealed by a key that is not at %s; bring the key file back, or set SEAL_KEY_FILE", place(c), c.SealKeyFile)
		}
		if key, err = seal.CreateFile(c.SealKeyFile, rand.Reader); err == nil {
			made = true
			log.Info("seal key made: keep a copy of the file in a safe place, without it the data are lost", "file", c.SealKeyFile)
		} else if errors.Is(err, fs.ErrExist) { // another node made it since we looked
			key, err = seal.OpenFile(c.SealKeyFile)
		}
	}
	if err != nil {
		return nil, false, err
	}
	if keyring != nil {
		if err := seal.Check(ctx, key, keyring); err != nil {
			return nil, false, err
		}
	}
	if c.DatabaseURL != "" {
		return key, made, nil
	}
	if within, err := sameFolder(c.SealKeyFile, c.DataDir); err == nil && within {
		log.Warn("the seal key lies beside the data: who copies the folder has both; move it to another disk and set SEAL_KEY_FILE",
			"file", c.SealKeyFile)
	}
	return key, made, nil
}

func openKeyring(ctx context.Context, st openedStore, key *seal.File) (*seal.Keyring, error) {
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

// witnessFile is where this node's witness of the store's age lies: off the store's disk where there
// is a place known for that, so that who puts an older data folder back does not put its witness
// back with it. A shared store is elsewhere anyway, and its nodes may share the key's folder.
func witnessFile(c *config.Config) string {
	if c.WitnessFile != "" {
		return c.WitnessFile
	}
	if within, err := sameFolder(c.SealKeyFile, c.DataDir); err == nil && !within && c.DatabaseURL == "" {
		if probe, err := os.CreateTemp(filepath.Dir(c.SealKeyFile), ".witness-*"); err == nil {
			_ = errors.Join(probe.Close(), os.Remove(probe.Name()))
			return c.SealKeyFile + ".witness"
		}
	}
	return filepath.Join(c.DataDir, "witness")
}

func sameFolder(file, dir string) (bool, error) {
	a, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return false, err
	}
	b, err := filepath.Abs(dir)
	return a == b, err
}
