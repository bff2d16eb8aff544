package mongotest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// installCommand is what a person runs when the server is missing.
const installCommand = "scripts/install-ferretdb.sh"

// ferret is one FerretDB, which keeps folder and port over restarts.
type ferret struct {
	path, dir, address string
	process            *servertest.Process
}

// find looks for the binary: where the environment says, in PATH, and in the cache that the install
// script fills.
func find() (string, error) {
	if path := os.Getenv("SCAIVAULT_TEST_FERRETDB"); path != "" {
		return path, nil
	}
	if path, err := exec.LookPath("ferretdb"); err == nil {
		return path, nil
	}
	dir, err := servertest.Checkout()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, ".cache", "mongo", "ferretdb")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no ferretdb in PATH or in %s: run %s", filepath.Dir(path), installCommand)
	}
	return path, nil
}

func (s *Server) startFerret(t TB) {
	t.Helper()
	path, err := find()
	if err != nil {
		t.Fatalf("start FerretDB: %v", err)
	}
	port, err := freeport.Pick()
	if err != nil {
		t.Fatalf("start FerretDB: %v", err)
	}
	s.ferret = &ferret{path: path, dir: t.TempDir(), address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	t.Cleanup(func() {
		if s.ferret.process != nil {
			_ = s.ferret.process.Kill() // it may be gone
		}
	})
	if err := s.ferret.run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(s.ferret.dir, "log"))
		t.Fatalf("start FerretDB: %v; its log: %s", err, log)
	}
}

func (f *ferret) run() error {
	for _, name := range []string{"data", "state"} {
		if err := os.MkdirAll(filepath.Join(f.dir, name), 0o700); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(f.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(f.path, //nolint:noctx // ended by Kill
		"--handler=sqlite", "--sqlite-url=file:"+filepath.Join(f.dir, "data")+"/", "--state-dir="+filepath.Join(f.dir, "state"),
		"--listen-addr="+f.address, "--debug-addr=-", "--telemetry=disable", "--log-level=warn", "--test-enable-new-auth",
		"--setup-database="+adminDB, "--setup-username="+adminName, "--setup-password="+adminPassword)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + f.dir, "DO_NOT_TRACK=1"}
	cmd.Dir, cmd.Stdout, cmd.Stderr = f.dir, log, log
	f.process, err = servertest.Start(cmd, func() bool {
		conn, err := net.Dial("tcp", f.address) //nolint:noctx // on loopback: at once or never
		return err == nil && conn.Close() == nil
	})
	return err
}
