package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

// Controllers are asked for only when the server has left the delegated group, and only if nobody else is
// in it. The folders stand for those of the kernel: this shows what is written, and when, not what the
// kernel makes of it.
func TestDelegate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		inside      string
		moved, asks string
	}{
		"alone":       {"42\n", "42", "+memory"},
		"with others": {"42\n43\n", "", ""},
		"elsewhere":   {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			dir, leaf := filepath.Join(parent, "programs"), filepath.Join(parent, serverGroup)
			for file, text := range map[string]string{
				filepath.Join(parent, "cgroup.procs"): tt.inside, filepath.Join(parent, "cgroup.subtree_control"): "",
				filepath.Join(dir, "cgroup.subtree_control"): "", filepath.Join(leaf, "cgroup.procs"): "",
			} {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			delegate(parent, dir, 42)
			for file, want := range map[string]string{
				filepath.Join(leaf, "cgroup.procs"): tt.moved, filepath.Join(dir, "cgroup.subtree_control"): tt.asks,
				filepath.Join(parent, "cgroup.subtree_control"): tt.asks,
			} {
				got, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if tail := string(got)[max(0, len(got)-len(want)):]; tail != want || want == "" && len(got) > 0 {
					t.Errorf("%s holds %q, want %q", file, got, want)
				}
			}
		})
	}
}
