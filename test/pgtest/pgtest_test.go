package pgtest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/test/pgtest"
)

// ownerEnv makes the test binary play a process that starts a server and waits
// to be killed.
const ownerEnv = "PGTEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		owner()
	}
	os.Exit(pgtest.Main(m))
}

func TestEachMajorServes(t *testing.T) {
	t.Parallel()
	for _, major := range pgtest.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			s := pgtest.Shared(t, major)
			name, password := s.NewRoot(t, pgtest.CreateRole)
			root := s.Connect(t, name, password, s.CreateDB(t))
			var version, role string
			err := root.QueryRow(t.Context(), `SELECT current_setting('server_version'), current_user`).Scan(&version, &role)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(version, s.Version) || s.Major != major || role != name {
				t.Errorf("got version %q as %q, want %q as %q", version, role, s.Version, name)
			}
			if _, err := root.Exec(t.Context(), "CREATE ROLE "+name+"_made LOGIN"); err != nil {
				t.Errorf("a CREATEROLE root cannot create: %v", err)
			}
			if _, err := root.Exec(t.Context(), "SELECT pg_read_file('postgresql.conf')"); err == nil {
				t.Error("a CREATEROLE root is a superuser")
			}
		})
	}
}

func TestPasswordsAreChecked(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t, 17)
	_, err := pgx.Connect(t.Context(), s.URL(pgtest.Superuser, "wrong", "postgres"))
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Fatalf("a wrong password got %v, want 28P01", err)
	}
}

func TestStopAndCrashKeepPortAndData(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, 17, pgtest.WithSetting("log_statement", "all"), pgtest.WithOwnIdentity())
	s.Exec(t, "CREATE TABLE kept (n int)")
	s.Stop(t)
	if err := ping(s.SuperURL("postgres")); err == nil {
		t.Fatal("a stopped server answers")
	}
	s.Start(t)
	s.Exec(t, "INSERT INTO kept VALUES ($1)", 1)
	s.Crash(t)
	s.Start(t)
	s.Kill(t)
	s.Start(t)
	s.Restart(t)
	var n int
	if err := s.Superuser(t).QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n); err != nil || n != 1 {
		t.Fatalf("got %d, %v after a crash, want 1", n, err)
	}
	if log := s.Log(t); !strings.Contains(log, "CREATE TABLE kept") || !strings.Contains(log, "SELECT n FROM kept") {
		t.Errorf("the log lacks what was said before and after the crash:\n%s", log)
	}
}

func TestFreezeHaltsOpenAndNewSessions(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, 15)
	open := s.Superuser(t)
	s.Freeze(t)
	if err := ping(s.SuperURL("postgres")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a new session at a frozen server got %v, want a time-out", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := open.Exec(context.Background(), "SELECT 1")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("an open session at a frozen server got %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	s.Thaw(t)
	if err := <-answered; err != nil {
		t.Errorf("the open session did not go on: %v", err)
	}
	s.Freeze(t) // the end of the test must cope
}

func TestTLSIsVerifiable(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, 16, pgtest.WithTLS(), pgtest.WithHBA("hostssl all all 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 reject"))
	if err := ping(s.SuperURL("postgres")); err == nil {
		t.Fatal("the rejecting line of pg_hba.conf is not in force")
	}
	config, err := pgx.ParseConfig(s.SuperURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	config.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
}

func TestOwnIdentityDiffers(t *testing.T) {
	t.Parallel()
	id := func(s *pgtest.Server) (id string) {
		t.Helper()
		err := s.Superuser(t).QueryRow(t.Context(), "SELECT system_identifier::text FROM pg_control_system()").Scan(&id)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	copied := id(pgtest.Shared(t, 17))
	if own := id(pgtest.Start(t, 17, pgtest.WithOwnIdentity())); own == copied {
		t.Errorf("both servers have system identifier %s", own)
	}
}

// A server must not outlive its owner, not even a frozen server a killed owner.
func TestServerDiesWithItsOwner(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), ownerEnv+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dataDir string
	if _, err := fmt.Fscanln(stdout, &dataDir); err != nil {
		t.Fatalf("the owner did not start a server: %v", err)
	}
	if len(serversIn(t, dataDir)) == 0 {
		t.Fatalf("no server runs in %s", dataDir)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(dataDir)
		if os.IsNotExist(err) && len(serversIn(t, dataDir)) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("folder: %v, processes left: %v", err, serversIn(t, dataDir))
		}
	}
}

func owner() {
	s, err := pgtest.Launch(context.Background(), pgtest.LaunchOptions{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	t := exiting{}
	conn := s.Superuser(t)
	var dir string
	if err := conn.QueryRow(context.Background(), "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatalf("%v", err)
	}
	s.Freeze(t)
	fmt.Println(dir)
	select {}
}

// exiting is a pgtest.TB for a program.
type exiting struct{}

func (exiting) Helper()        {}
func (exiting) Cleanup(func()) {}
func (exiting) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// serversIn lists the processes whose command line or folder is the data folder.
func serversIn(t *testing.T, dataDir string) (pids []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dataDir) {
			pids = append(pids, link)
		}
	}
	return pids
}

func TestMissingVersionNamesTheCommand(t *testing.T) {
	t.Setenv("SCAIVAULT_TEST_PG18_BIN", t.TempDir())
	_, err := pgtest.Launch(t.Context(), pgtest.LaunchOptions{Major: 18})
	if err == nil || !strings.Contains(err.Error(), "scripts/install-postgres.sh 18") {
		t.Fatalf("got %v", err)
	}
}

func ping(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}
