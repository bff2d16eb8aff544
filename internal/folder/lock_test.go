package folder

import (
	"syscall"
	"testing"
)

// A child that was forked and not yet executed holds a duplicate of every open file, the lock's
// too: a folder that was closed meanwhile is free all the same.
func TestClosedFolderIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	duplicate, err := syscall.Dup(int(f.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(duplicate) })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
