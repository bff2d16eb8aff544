package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// LaunchOptions describe a server; the zero value is the newest version that
// is installed, without fsync.
type LaunchOptions struct {
	Major       int               // 0: the newest to be had
	Settings    map[string]string // lines of postgresql.conf
	HBA         []string          // lines in front of pg_hba.conf
	TLS         bool              // offer TLS, see WithTLS
	Fsync       bool              // durable commits, see WithFsync
	OwnIdentity bool              // its own system identifier, see WithOwnIdentity
}

// Server is one private PostgreSQL. Its methods may be called from several
// goroutines.
type Server struct {
	Major   int
	Version string // for instance "17.10"
	Port    int

	installation installation
	account      account
	dir          string
	password     string
	ca           []byte
	keeper       *keeper

	mu         sync.Mutex
	postmaster *postmaster // nil while stopped
}

// Launch starts a server for a caller that is not a test. The caller closes
// it; if the caller dies first, the server dies, too.
func Launch(ctx context.Context, o LaunchOptions) (*Server, error) {
	a, err := serverAccount()
	if err != nil {
		return nil, err
	}
	s := &Server{Major: o.Major, account: a}
	if o.Major == 0 {
		s.installation, s.Major, err = newestInstallation(a)
	} else {
		s.installation, err = findInstallation(o.Major, a)
	}
	if err != nil {
		return nil, err
	}
	s.Version = s.installation.version
	if s.dir, err = a.tempDir(); err != nil {
		return nil, err
	}
	if s.keeper, err = newKeeper(s.dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := s.prepare(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepare makes the data folder.
func (s *Server) prepare(ctx context.Context, o LaunchOptions) (err error) {
	if s.Port, err = freeport.Pick(); err != nil {
		return err
	}
	if s.password, err = newCluster(ctx, s.installation, s.account, s.dir, o.OwnIdentity); err != nil {
		return fmt.Errorf("make a cluster: %w", err)
	}
	if err = configure(s.data(), o, s.Port); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	if o.TLS {
		if s.ca, err = servertest.WriteCertificate(s.data()); err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
	}
	return tighten(s.account, s.data())
}

// Close kills the server and removes its folder. Safe to call twice.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postmaster != nil {
		s.postmaster.kill()
		s.postmaster = nil
	}
	s.keeper.release()
	return os.RemoveAll(s.dir)
}

// CA is the PEM of the certificate that verifies the server, nil without TLS.
func (s *Server) CA() []byte { return s.ca }

// Addr is host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL is a connection URL without TLS.
func (s *Server) URL(user, password, db string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, password),
		Host:     s.Addr(),
		Path:     "/" + db,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// SuperURL is URL for the superuser.
func (s *Server) SuperURL(db string) string { return s.URL(Superuser, s.password, db) }

// SuperPassword is the superuser's password.
func (s *Server) SuperPassword() string { return s.password }

func (s *Server) data() string    { return filepath.Join(s.dir, "data") }
func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }
