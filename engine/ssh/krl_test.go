package ssh_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/test/sshtest"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func krl(t testing.TB, revoked []engine.Recipe) []byte {
	t.Helper()
	list, err := ssh.Type{}.RevocationList(noon, revoked)
	if err != nil {
		t.Fatalf("make a list: %v", err)
	}
	return list
}

// serials reads the list's serials, from behind its header and the heads of its one section.
func serials(t testing.TB, list []byte) (found []uint64) {
	t.Helper()
	const header = 8 + 4 + 8 + 8 + 8 + 4 + 4 + len("ScaiVault")
	if len(list) == header {
		return nil
	}
	const heads = 1 + 4 + 4 + 4 + 1 + 4
	for rest := list[header+heads:]; len(rest) > 0; rest = rest[8:] {
		found = append(found, binary.BigEndian.Uint64(rest))
	}
	return found
}

func recipeOf(serial uint64) engine.Recipe {
	return engine.Recipe(`{"lease_id": "lease_1", "issued": true, "ends": 1, "serial": "` + strconv.FormatUint(serial, 10) + `"}`)
}

// TestRevocationList has OpenSSH read the lists, of nothing, of all that a serial can be, and of many.
func TestRevocationList(t *testing.T) {
	t.Parallel()
	many := make([]uint64, 10_000)
	for i := range many {
		many[i] = uint64(i+1) * 1844674407370955 // spread over all there are
	}
	for name, revoked := range map[string][]uint64{
		"of none": nil, "of one": {7}, "of the ends": {math.MaxUint64, 1, math.MaxInt64, math.MaxInt64 + 2}, "of 10,000": many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var recipes []engine.Recipe
			for _, serial := range revoked {
				recipes = append(recipes, recipeOf(serial))
			}
			list := krl(t, recipes)
			slices.Reverse(recipes)
			if !bytes.Equal(list, krl(t, recipes)) {
				t.Error("the order makes a difference")
			}
			file := filepath.Join(t.TempDir(), "krl")
			if err := os.WriteFile(file, list, 0o600); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			printed := sshtest.Keygen(t, "-Q", "-l", "-f", file)
			t.Logf("%d bytes, read in %s", len(list), time.Since(begun))
			for _, serial := range revoked {
				if !strings.Contains(printed, "serial: "+strconv.FormatUint(serial, 10)+"\n") {
					t.Fatalf("ssh-keygen does not read serial %d", serial)
				}
			}
			if n := strings.Count(printed, "serial: "); n != len(revoked) || !strings.Contains(printed, "# Generated at 20261123T") {
				t.Errorf("ssh-keygen reads %d serials of %d", n, len(revoked))
			}
		})
	}
}

// TestRevokedCertificate has OpenSSH look certificates up, also one that a former key of the CA has signed.
func TestRevokedCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, line := newKey(t)
	var revoked []engine.Recipe
	var paths []string
	for _, keyType := range []string{"ed25519", "ecdsa-p256"} {
		e, r := open(t, newOptions(t, ca.with(fields{"key_type": keyType}))), newRole(t, deploy)
		for _, name := range []string{"revoked", "alive"} {
			p, recipe := issue(t, e, r, fields{"public_key": line})
			if name == "revoked" {
				revoked = append(revoked, recipe)
			}
			paths = append(paths, write(keyType+"-"+name+".pub", []byte(p.Data["signed_key"].Reveal()+"\n")))
		}
	}
	list := write("krl", krl(t, revoked))
	for _, path := range paths {
		out, err := sshtest.Command(t, "ssh-keygen", "-Q", "-f", list, path).CombinedOutput()
		if want := strings.HasSuffix(path, "-revoked.pub"); want != (err != nil) || want != strings.Contains(string(out), "REVOKED") {
			t.Errorf("%s: %v, %s", filepath.Base(path), err, out)
		}
	}
}

func BenchmarkRevocationList(b *testing.B) {
	recipes := make([]engine.Recipe, 10_000)
	for i := range recipes {
		recipes[i] = recipeOf(uint64(i + 1))
	}
	b.ReportAllocs()
	for b.Loop() {
		krl(b, recipes)
	}
}
