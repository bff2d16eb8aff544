package krl_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/krl"
	"github.com/scaivault/scaivault/test/sshtest"
)

// written makes a list of every kind that ssh-keygen can write.
func written(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	spec, list := filepath.Join(dir, "spec"), filepath.Join(dir, "krl")
	ca, key := sshtest.NewKey(t), sshtest.NewKey(t)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	lines := fmt.Sprintf("serial: 7\nserial: 100-1000000\nid: lease_1\nkey: %ssha1: %ssha256: %s", public, public, public)
	for serial := 2000001; serial < 2000400; serial += 3 { // dense enough for a bitmap
		lines += fmt.Sprintf("serial: %d\n", serial)
	}
	if err := os.WriteFile(spec, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	sshtest.Keygen(t, "-q", "-k", "-f", list, "-s", ca+".pub", "-z", "42", spec)
	data, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What ssh-keygen writes is read, and nothing shorter or longer.
func TestReadWhole(t *testing.T) {
	t.Parallel()
	data := written(t)
	info, err := krl.Read(data)
	if err != nil || info.Version != 42 || time.Since(info.Generated).Abs() > time.Hour {
		t.Fatalf("%+v, %v", info, err)
	}
	// Where a section ends the shorter list is one, too.
	whole := 0
	for n := range data {
		if _, err := krl.Read(data[:n]); err == nil {
			whole++
		}
	}
	if whole > 5 {
		t.Errorf("%d beginnings of the list are taken for whole ones", whole)
	}
	if _, err := krl.Read(append(bytes.Clone(data), 0)); err == nil {
		t.Error("a list with more behind it is taken for a whole one")
	}
}

// What is no list is refused, the texts that a proxy may answer among them; and so is what sshd
// itself refuses.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	head := "5353484b524c0a00" + "00000001" + "0000000000000001" + "0000000000000000" + "0000000000000000" + "00000000" + "00000000"
	section := func(parts string) string { // of certificates, of every CA
		return fmt.Sprintf("01%08x", 8+len(parts)/2) + "00000000" + "00000000" + parts
	}
	part := func(kind, data string) string { return kind + fmt.Sprintf("%08x", len(data)/2) + data }
	const one, nought = "0000000000000001", "0000000000000000"
	for name, text := range map[string]string{
		"nothing":                   "",
		"a page":                    hex.EncodeToString([]byte("<html>bad gateway</html>")),
		"an error":                  hex.EncodeToString([]byte(`{"error":{"code":"not_found"}}`)),
		"another format":            strings.Replace(head, "00000001", "00000002", 1),
		"half a header":             head[:40],
		"an unknown section":        head + "0900000000",
		"a signature":               head + "0400000000",
		"a section too long":        head + "01ffffffff",
		"a CA that is no key":       head + "010000000c" + "00000004deadbeef" + "00000000",
		"serial 0":                  head + section(part("20", nought)),
		"half a serial":             head + section(part("20", "00000001")),
		"a range from 0":            head + section(part("21", nought+one)),
		"a range backwards":         head + section(part("21", "0000000000000002"+one)),
		"a range and more":          head + section(part("21", one+one+one)),
		"an empty bitmap":           head + section(part("22", one+"00000000")),
		"a bitmap of zeroes":        head + section(part("22", one+"0000000100")),
		"a negative bitmap":         head + section(part("22", one+"0000000180")),
		"a bitmap with serial 0":    head + section(part("22", nought+"0000000101")),
		"a bitmap past the end":     head + section(part("22", "ffffffffffffffff"+"0000000102")),
		"a bitmap too large":        head + section(part("22", one+"00200001"+"01"+strings.Repeat("00", 1<<21))),
		"an unknown part":           head + section(part("24", "")),
		"half a key id":             head + section(part("23", "00000004aa")),
		"a key that is none":        head + "02" + "00000008" + "00000004" + "deadbeef",
		"a fingerprint of 4 bytes":  head + "05" + "00000008" + "00000004" + "deadbeef",
		"a fingerprint, wrong hash": head + "03" + "00000024" + "00000020" + strings.Repeat("00", 32),
	} {
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := krl.Read(data); err == nil {
			t.Errorf("%s is taken for a list", name)
		} else if !strings.HasPrefix(err.Error(), "read the revocation list: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	key := sshtest.NewKey(t) + ".pub"
	for name, text := range map[string]string{
		"nothing revoked": head, "a serial": head + section(part("20", one)), "a range of one": head + section(part("21", one+one)),
		"a bitmap": head + section(part("22", one+"0000000101")),
	} {
		data, _ := hex.DecodeString(text)
		if _, err := krl.Read(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		list := filepath.Join(t.TempDir(), "krl")
		if err := os.WriteFile(list, data, 0o600); err != nil {
			t.Fatal(err)
		}
		sshtest.Keygen(t, "-Q", "-f", list, key) // OpenSSH reads it, too
	}
}

func FuzzRead(f *testing.F) {
	head := binary.BigEndian.AppendUint64(nil, 0x5353484b524c0a00)
	head = append(head, 0, 0, 0, 1)
	head = append(head, make([]byte, 32)...)
	f.Add(head)
	f.Add(append(bytes.Clone(head), 1, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9))
	f.Fuzz(func(t *testing.T, data []byte) {
		if info, err := krl.Read(data); err != nil && info != (krl.Info{}) {
			t.Errorf("%+v beside %v", info, err)
		}
	})
}
