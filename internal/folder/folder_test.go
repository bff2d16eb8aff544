package folder_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/folder"
)

// One process has a folder: a second opening is refused until the first is closed.
func TestOpenOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := folder.Open(dir); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("a second one has it, too: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file that is replaced is private, and nothing lies about beside it.
func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for _, text := range []string{"first", "second, longer"} {
		if err := folder.Replace(path, text); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := folder.Replace(filepath.Join(path, "x"), "text"); err == nil {
		t.Error("written below a file")
	}
}
