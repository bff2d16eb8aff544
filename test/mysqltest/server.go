package mysqltest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// adminTimeout bounds one statement of a test.
const adminTimeout = time.Minute

// Server is one server. It keeps its folder and port over restarts.
type Server struct {
	Kind string
	Port int

	program   string
	dir       string
	arguments []string
	ca        []byte
	process   *servertest.Process
	admin     *sql.DB
}

// Option changes how a server is started.
type Option func(*Server) error

// WithArguments adds arguments.
func WithArguments(arguments ...string) Option {
	return func(s *Server) error {
		s.arguments = append(s.arguments, arguments...)
		return nil
	}
}

// WithTLS makes the server refuse what is not TLS, with a certificate for 127.0.0.1
// and localhost that Server.CA verifies.
func WithTLS() Option {
	return func(s *Server) (err error) {
		s.ca, err = servertest.WriteCertificate(s.dir)
		s.arguments = append(s.arguments, "--ssl-ca="+s.path(servertest.CertFile), "--ssl-cert="+s.path(servertest.CertFile), "--ssl-key="+s.path(servertest.KeyFile), "--require-secure-transport=ON")
		return err
	}
}

// Start runs a server until the end of the test.
func Start(t TB, kind string, options ...Option) *Server {
	t.Helper()
	s, err := start(kind, options...)
	if err != nil {
		t.Fatalf("start %s: %v", kind, err)
	}
	t.Cleanup(s.close)
	return s
}

func start(kind string, options ...Option) (*Server, error) {
	home, err := home(kind)
	if err != nil {
		return nil, err
	}
	port, err := freeport.Pick()
	if err != nil {
		return nil, err
	}
	// The name of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "sv-"+kind+"-")
	if err != nil {
		return nil, err
	}
	s := &Server{Kind: kind, Port: port, program: filepath.Join(home, "bin", "server"), dir: dir}
	err = os.CopyFS(s.path("data"), os.DirFS(filepath.Join(home, "data")))
	for _, option := range options {
		err = errors.Join(err, option(s))
	}
	if err == nil {
		err = s.run()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) run() error {
	who, err := user.Current()
	if err != nil {
		return err
	}
	arguments := []string{
		"--user=" + who.Username, "--datadir=" + s.path("data"), "--socket=" + s.path("s"), "--pid-file=" + s.path("pid"), "--port=" + strconv.Itoa(s.Port),
		"--bind-address=127.0.0.1", "--skip-name-resolve", "--log-error=" + s.path("error.log"), "--secure-file-priv=", "--server-id=1",
		"--tmpdir=" + s.dir, // two of MariaDB in one folder may give temporary tables the same name
		"--general-log=ON", "--general-log-file=" + s.path("general.log"), "--log-bin=" + s.path("binlog"),
		"--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--max-connections=300",
	}
	if s.Kind == MySQL {
		arguments = append(arguments, "--mysqlx=OFF", "--innodb-redo-log-capacity=8M")
	}
	cmd := exec.Command(s.program, append(arguments, s.arguments...)...) //nolint:noctx // ended by close
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.Dir = s.dir
	s.admin, err = s.open(&mysql.Config{User: "root", Net: "unix", Addr: s.path("s")})
	if err != nil {
		return err
	}
	s.process, err = servertest.Start(cmd, func() bool { return s.admin.PingContext(context.Background()) == nil })
	if err != nil {
		log, _ := os.ReadFile(s.path("error.log"))
		return fmt.Errorf("%w; its log: %s", err, log[max(0, len(log)-2000):])
	}
	return nil
}

// Restart is kill -9, and the same server again.
func (s *Server) Restart(t TB) {
	t.Helper()
	_ = s.admin.Close()
	if err := s.process.Kill(); err != nil {
		t.Fatalf("kill %s: %v", s.Kind, err)
	}
	if err := s.run(); err != nil {
		t.Fatalf("start %s again: %v", s.Kind, err)
	}
}

func (s *Server) close() {
	if s.admin != nil {
		_ = s.admin.Close()
	}
	if s.process != nil {
		_ = s.process.Kill() // it has ended, or does now
	}
	_ = os.RemoveAll(s.dir)
}

// Freeze stops the process: connections stay open and nobody answers.
func (s *Server) Freeze(t TB) { s.signal(t, syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *Server) Thaw(t TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t TB, signal syscall.Signal) {
	t.Helper()
	if err := s.process.Signal(signal); err != nil {
		t.Fatalf("signal %s: %v", s.Kind, err)
	}
}

// Addr is host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// CA is the PEM of the certificate that verifies the server; nil without TLS.
func (s *Server) CA() []byte { return s.ca }

// Exec runs statements as the administrator.
func (s *Server) Exec(t TB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if err := s.Try(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// Try is Exec for a statement that may fail.
func (s *Server) Try(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	_, err := s.admin.ExecContext(ctx, statement)
	return err
}

// Query answers the rows of a statement as texts; NULL is empty.
func (s *Server) Query(t TB, statement string) [][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	rows, err := s.admin.QueryContext(ctx, statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	var all [][]string
	for rows.Next() {
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		row := make([]string, len(columns))
		for i, v := range values {
			row[i] = v.String
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return all
}

// Exists tells whether there is an account of the name, for whatever host.
func (s *Server) Exists(t TB, name string) bool {
	t.Helper()
	return s.Query(t, "SELECT COUNT(*) FROM mysql.user WHERE User = '"+name+"'")[0][0] != "0"
}

// Login logs in over TCP: one session, which ends with Close and is not made again.
func (s *Server) Login(ctx context.Context, name, password, database string) (*Session, error) {
	cfg := &mysql.Config{User: name, Passwd: password, Net: "tcp", Addr: s.Addr(), DBName: database}
	if s.ca != nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(s.ca)
		cfg.TLS = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	}
	db, err := s.open(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return &Session{conn, db}, nil
}

func (s *Server) open(with *mysql.Config) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName, cfg.TLS = with.User, with.Passwd, with.Net, with.Addr, with.DBName, with.TLS
	cfg.Logger, cfg.Timeout = &mysql.NopLogger{}, adminTimeout
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// Session is one session of a user.
type Session struct {
	*sql.Conn
	db *sql.DB
}

// Close ends the session.
func (s *Session) Close() {
	_ = s.Conn.Close()
	_ = s.db.Close()
}

// Log is all that the server was told: its general log, and its binary logs as they
// are.
func (s *Server) Log(t TB) (general, binary string) {
	t.Helper()
	s.Exec(t, "FLUSH BINARY LOGS")
	names, err := filepath.Glob(s.path("binlog.[0-9]*"))
	if err != nil {
		t.Fatalf("find the binary logs: %v", err)
	}
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("read a binary log: %v", err)
		}
		all.Write(text)
	}
	text, err := os.ReadFile(s.path("general.log"))
	if err != nil {
		t.Fatalf("read the general log: %v", err)
	}
	return string(text), all.String()
}
