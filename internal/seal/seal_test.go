package seal_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

type bundle struct {
	dir, keyFile string
	seal         *seal.File
	store        *sqlite.Store
	keys         *seal.Keyring
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{dir: t.TempDir()}
	b.keyFile = filepath.Join(b.dir, "keys", "seal.key")
	var err error
	if b.seal, err = seal.CreateFile(b.keyFile, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if b.store, err = sqlite.Open(t.Context(), sqlite.Config{Dir: b.dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.store.Close() })
	if b.keys, err = seal.Open(t.Context(), b.store, b.seal); err != nil {
		t.Fatal(err)
	}
	return b
}

func place(path string, version int) seal.Place {
	return seal.Place{Tenant: store.DefaultTenant, Table: "secret", Path: path, Version: version}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	info, err := os.Stat(b.keyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode is %v (%v), want 0600", info.Mode(), err)
	}
	again, err := seal.OpenFile(b.keyFile)
	if err != nil || again.ID() != b.seal.ID() {
		t.Fatalf("opened again: %v", err)
	}
	if _, err := seal.CreateFile(b.keyFile, rand.Reader); err == nil {
		t.Error("an existing key file was replaced")
	}
	if _, err := seal.OpenFile(b.keyFile + ".none"); !errors.Is(err, seal.ErrNoKey) {
		t.Errorf("no file: %v, want ErrNoKey", err)
	}
	if err := os.Chmod(b.keyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenFile(b.keyFile); err == nil {
		t.Error("a key file that everybody can read was accepted")
	}
	text, err := os.ReadFile(b.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(b.dir, "cut.key")
	if err := os.WriteFile(cut, text[:len(text)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenFile(cut); err == nil || strings.Contains(err.Error(), strings.TrimSpace(string(text[22:40]))) {
		t.Errorf("a damaged key file: %v", err)
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other, err := seal.CreateFile(filepath.Join(b.dir, "other.key"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Open(t.Context(), b.store, other); err == nil || !strings.Contains(err.Error(), b.seal.ID()) {
		t.Errorf("open by another key: %v, want a refusal that names the right one", err)
	}
	stored, exists, err := sqlite.Peek(t.Context(), b.dir, seal.MetaKey)
	if err != nil || !exists {
		t.Fatalf("peek: %v, %v", exists, err)
	}
	if err := seal.Check(t.Context(), other, stored); err == nil {
		t.Error("check by another key passed")
	}
	if err := seal.Check(t.Context(), b.seal, stored); err != nil {
		t.Errorf("check by the right key: %v", err)
	}
	audit, err := b.keys.AuditKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := seal.Open(t.Context(), b.store, b.seal)
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := again.AuditKey(); !bytes.Equal(audit, same) {
		t.Error("the audit key is another one after the keyring was opened again")
	}
	if names, _ := again.NameKey(); bytes.Equal(audit, names) {
		t.Error("two uses have the same key")
	}
}

func TestRecordIsBoundToItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secret := []byte("canary-of-the-record")
	sealed, err := b.keys.Encrypt(place("a/b", 1), secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, secret) {
		t.Fatal("the record is in the clear")
	}
	got, err := b.keys.Decrypt(place("a/b", 1), sealed)
	if err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("decrypt: %q, %v", got, err)
	}
	for name, at := range map[string]seal.Place{
		"version": place("a/b", 2),
		"path":    place("a/c", 1),
		"table":   {Tenant: store.DefaultTenant, Table: "other", Path: "a/b", Version: 1},
		"tenant":  {Tenant: "tnt_other", Table: "secret", Path: "a/b", Version: 1},
		"shifted": {Tenant: store.DefaultTenant, Table: "secreta", Path: "/b", Version: 1},
	} {
		if _, err := b.keys.Decrypt(at, sealed); fault.CodeOf(err) != fault.InternalError {
			t.Errorf("moved to another %s: %v, want a failure", name, err)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := b.keys.Decrypt(place("a/b", 1), bad); err == nil {
			t.Errorf("a record with byte %d changed decrypts", i)
		}
	}
	if _, err := b.keys.Decrypt(place("a/b", 1), sealed[:20]); err == nil {
		t.Error("a record cut short decrypts")
	}
}

func TestTenantKeyRotates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old, err := b.keys.Encrypt(place("a", 1), []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.keys.RotateTenant(t.Context(), store.DefaultTenant); err != nil {
		t.Fatal(err)
	}
	now, err := b.keys.Encrypt(place("a", 2), []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(old[:5], now[:5]) {
		t.Error("the new record is under the old key")
	}
	again, err := seal.Open(t.Context(), b.store, b.seal)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*seal.Keyring{b.keys, again} {
		for version, sealed := range map[int][]byte{1: old, 2: now} {
			if _, err := k.Decrypt(place("a", version), sealed); err != nil {
				t.Errorf("version %d after rotation: %v", version, err)
			}
		}
	}
}
