// Package seal is the key hierarchy: a root key, held by a [Seal], wraps the [Keyring] with the
// tenants' keys; a tenant's key wraps the data key of each record; the data key encrypts it.
// Everything is AES-256-GCM, and each record is bound to its place (law L6): one that was moved or
// swapped does not decrypt.
//
// Keys rotate without the data being written anew: a tenant gets a newer key for what comes, and
// the older ones stay for what is there; another root key wraps the same keyring again.
package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/scaivault/scaivault/internal/folder"
)

const keySize = 32

// Seal holds the root key, or asks the service that does. Safe for concurrent use.
type Seal interface {
	// ID names the root key, so that another key is told from damaged data. It gives nothing away.
	ID() string
	// Wrap encrypts under the root key; Unwrap answers what was wrapped, or fails.
	Wrap(ctx context.Context, plaintext []byte) ([]byte, error)
	Unwrap(ctx context.Context, sealed []byte) ([]byte, error)
}

// ErrNoKey says that the key file does not exist, ErrOtherKey that the data were sealed by another key.
var (
	ErrNoKey    = errors.New("there is no seal key file")
	ErrOtherKey = errors.New("give the server the key file that was made with these data (SEAL_KEY_FILE)")
)

// File is a root key in a file that only the server's user can read.
type File struct {
	id   string
	aead cipher.AEAD
}

var _ Seal = (*File)(nil)

// prefix tells a key file from any other, and its form from later ones.
const prefix = "scaivault-seal-key-1:"

// OpenFile reads a key file. The error is ErrNoKey when there is none.
func OpenFile(path string) (*File, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open seal key %s: %w", path, ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("open seal key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("open seal key %s: every user of the machine may use it (mode %04o); run chmod 600 on it", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read seal key: %w", err)
	}
	encoded, ok := strings.CutPrefix(strings.TrimSpace(string(text)), prefix)
	key, err := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) != keySize {
		return nil, fmt.Errorf("read seal key %s: this is no seal key file, or it is damaged", path)
	}
	return newFile(key)
}

// CreateFile makes a key file with a new key, durable when it returns. It never replaces one: the
// error is fs.ErrExist, and the file that is there is whole.
func CreateFile(path string, random io.Reader) (*File, error) {
	key := make([]byte, keySize)
	if _, err := io.ReadFull(random, key); err != nil {
		return nil, fmt.Errorf("make seal key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make seal key: %w", err)
	}
	if err := writeNew(path, prefix+base64.RawURLEncoding.EncodeToString(key)+"\n"); err != nil {
		return nil, fmt.Errorf("make seal key: %w", err)
	}
	return newFile(key)
}

// writeNew makes a file whose content and name survive a power loss. Nobody sees half of it.
func writeNew(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".seal-key-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Link(file.Name(), path); err != nil {
		return err
	}
	return folder.Sync(filepath.Dir(path))
}

func newFile(key []byte) (*File, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("scaivault seal key id\x00"), key...))
	return &File{id: hex.EncodeToString(sum[:8]), aead: aead}, nil
}

// newAEAD draws a nonce of 96 bits for each message, which is safe for 2^32 messages of one key:
// a root key wraps a keyring now and then, a tenant's key one data key a write, a data key one record.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// ID names the key by a hash of it.
func (f *File) ID() string { return f.id }

// Wrap encrypts under the key.
func (f *File) Wrap(_ context.Context, plaintext []byte) ([]byte, error) {
	return f.aead.Seal(nil, nil, plaintext, []byte(prefix)), nil //nolint:gosec // G407: the AEAD draws the nonce itself and wants none
}

// Unwrap answers what was wrapped.
func (f *File) Unwrap(_ context.Context, sealed []byte) ([]byte, error) {
	plaintext, err := f.aead.Open(nil, nil, sealed, []byte(prefix))
	if err != nil {
		return nil, errors.New("unwrap by the seal key: the data are damaged or not this key's")
	}
	return plaintext, nil
}
