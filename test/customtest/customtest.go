// Package customtest brings what the tests of custom engines run: a folder of programs as an operator
// sets it up, and the example of the guide over a real PostgreSQL.
package customtest

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/servertest"
)

// Folder is a folder of programs.
type Folder struct {
	Dir string
	// User is whom they run as: nobody else runs as this one. Empty where root does not run the tests.
	User string
}

// New makes an empty folder, which every user can enter and only this one write to.
func New(t testing.TB) Folder {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := Folder{Dir: dir}
	if os.Getuid() == 0 {
		user := strconv.Itoa(servertest.User(dir))
		f.User = user + ":" + user
	}
	return f
}

// Env is the configuration of a server that runs these programs.
func (f Folder) Env() []string {
	return []string{"CUSTOM_PROGRAMS_DIR=" + f.Dir, "CUSTOM_PROGRAMS_USER=" + f.User}
}

// Add puts a program into the folder.
func (f Folder) Add(t testing.TB, name string, content []byte) {
	t.Helper()
	path := filepath.Join(f.Dir, name)
	if err := errors.Join(os.WriteFile(path, content, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// Program is the name of the example of the guide.
const Program = "postgresql-tenants"

// Tenants is a database with the root of the guide, for the example.
type Tenants struct {
	Server         *pgtest.Server
	Database       string
	Root, Password string
}

// NewTenants puts the example into the folder, as it stands in the guide, and makes a database for it.
func NewTenants(t testing.TB, f Folder, server *pgtest.Server) *Tenants {
	t.Helper()
	example, err := os.ReadFile(filepath.Join(repository(t), "docs", "examples", Program))
	if err != nil {
		t.Fatal(err)
	}
	f.Add(t, Program, withClient(t, f, example))
	s := &Tenants{Server: server, Database: server.CreateDB(t), Password: rand.Text()}
	s.Root = "root_of_" + s.Database
	guide, err := os.ReadFile(filepath.Join(repository(t), "docs", "engines", "custom.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(guide), "```sql\n")
	block, _, _ = strings.Cut(block, "```")
	server.ExecIn(t, s.Database, strings.NewReplacer("scaivault_tenants", s.Root, "a-long-one", s.Password, "DATABASE app", "DATABASE "+s.Database).Replace(block))
	return s
}

// withClient makes a program find the client of PostgreSQL, where the system has none.
func withClient(t testing.TB, f Folder, program []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath("psql"); err == nil {
		return program
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(f.Dir, "psql"), "./test/docs/psql")
	build.Dir = repository(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a client of PostgreSQL: %v\n%s", err, out)
	}
	return []byte(strings.Replace(string(program), "\nset -eu\n", "\nset -eu\nPATH=$PATH:"+f.Dir+"\n", 1))
}

// Parameters are the engine's.
func (s *Tenants) Parameters() map[string]any {
	return map[string]any{"host": "127.0.0.1", "port": s.Server.Port, "database": s.Database}
}

// Names are the accounts whose names hold the text.
func (s *Tenants) Names(t testing.TB, text string) []string {
	t.Helper()
	rows, err := s.Server.Superuser(t).Query(t.Context(), "SELECT rolname FROM pg_roles WHERE strpos(rolname, $1) > 0", text)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Login connects with a credential. The caller closes what it returns.
func (s *Tenants) Login(ctx context.Context, data map[string]string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.Server.URL(data["username"], data["password"], s.Database))
}

// repository is the folder of this repository.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := servertest.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
