package mongotest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// Member is one front: a mongod, or a mongos.
type Member struct {
	world  *world
	ferret *ferret
	addr   string
	tls    *tls.Config

	mu       sync.Mutex
	listener net.Listener // nil while it is stopped
	conns    map[net.Conn]bool
	behind   *state // what it has while it lags; nil while it does not
	cache    map[name]cached
}

// cached is a user as a mongos remembers it; there is false for one that was not there.
type cached struct {
	user  userRecord
	there bool
	until time.Time
}

func (s *Server) startFronts(t TB, f form) {
	t.Helper()
	cfg, err := s.certificates(t.TempDir(), f)
	if err != nil {
		t.Fatalf("make the certificate of a server: %v", err)
	}
	for range max(f.set, f.routers, 1) {
		port, err := freeport.Pick()
		if err != nil {
			t.Fatalf("start a member: %v", err)
		}
		m := &Member{world: s.world, ferret: s.ferret, tls: cfg, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), conns: map[net.Conn]bool{}, cache: map[name]cached{}}
		s.world.members = append(s.world.members, m)
	}
	s.Members, s.address = s.world.members, s.world.members[0].addr
	if f.set > 0 {
		s.world.primary = s.Members[0]
	}
	for _, m := range s.Members {
		t.Cleanup(m.Stop)
		m.Run(t)
	}
}

func (s *Server) certificates(dir string, f form) (*tls.Config, error) {
	if !f.tls {
		return nil, nil
	}
	ca, err := servertest.WriteCertificate(dir)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, servertest.CertFile), filepath.Join(dir, servertest.KeyFile))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(dir, servertest.KeyFile))
	if err != nil {
		return nil, err
	}
	s.ca, s.key = ca, key
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if f.clientCerts {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.ClientCAs = x509.NewCertPool()
		cfg.ClientCAs.AppendCertsFromPEM(ca)
	}
	return cfg, nil
}

// Addr is host and port.
func (m *Member) Addr() string { return m.addr }

// Run lets a member listen, again if it was stopped.
func (m *Member) Run(t TB) {
	t.Helper()
	l, err := net.Listen("tcp", m.addr) //nolint:noctx // at once or never
	if err != nil {
		t.Fatalf("let a member listen on %s: %v", m.addr, err)
	}
	m.mu.Lock()
	m.listener = l
	m.mu.Unlock()
	go m.accept(l)
}

func (m *Member) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		if m.tls != nil {
			client = tls.Server(client, m.tls)
		}
		m.mu.Lock()
		stopped := m.listener != l
		if !stopped {
			m.conns[client] = true
		}
		m.mu.Unlock()
		if stopped {
			_ = client.Close()
			return
		}
		go m.serve(client)
	}
}

func (m *Member) serve(client net.Conn) {
	defer func() {
		_ = client.Close()
		m.mu.Lock()
		delete(m.conns, client)
		m.mu.Unlock()
	}()
	server, err := net.Dial("tcp", m.ferret.address) //nolint:noctx // on loopback: at once or never
	if err != nil {
		return
	}
	defer server.Close()
	(&conn{member: m, client: client, server: server}).run()
}

// Stop ends a member with all of its connections.
func (m *Member) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listener == nil {
		return
	}
	_ = m.listener.Close()
	m.listener = nil
	for c := range m.conns {
		_ = c.Close()
	}
}

func (m *Member) running() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listener != nil
}

// Lag makes a secondary keep the users and roles that it has now, until CatchUp.
func (m *Member) Lag() {
	now := m.world.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behind = now
}

// CatchUp lets a secondary learn what it missed.
func (m *Member) CatchUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behind = nil
}

// StepDown makes another member the primary, and breaks the connections of the former one.
func (s *Server) StepDown(to *Member) {
	s.world.mu.Lock()
	former := s.world.primary
	s.world.primary = to
	s.world.mu.Unlock()
	former.mu.Lock()
	defer former.mu.Unlock()
	for c := range former.conns {
		_ = c.Close()
	}
}

func (m *Member) isPrimary() bool {
	if m.world.form.set == 0 {
		return true
	}
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	return m.world.primary == m
}

// sees is the state as the member has it.
func (m *Member) sees() *state {
	m.mu.Lock()
	behind := m.behind
	m.mu.Unlock()
	if behind != nil {
		return behind
	}
	return m.world.now()
}

// user is a user as the member takes it for commands on a connection: a mongos remembers.
func (m *Member) user(n name) (userRecord, bool) {
	u, there := m.sees().users[n]
	if m.world.form.routers == 0 {
		return u, there
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.cache[n]; ok && time.Now().Before(c.until) {
		return c.user, c.there
	}
	m.cache[n] = cached{u, there, time.Now().Add(cacheLife)}
	return u, there
}

// forget drops what a mongos remembers: of one user, which it has changed itself, or of all.
func (m *Member) forget(users ...name) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(users) == 0 {
		clear(m.cache)
	}
	for _, n := range users {
		delete(m.cache, n)
	}
}
