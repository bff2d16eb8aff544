// Package mongotest gives tests a MongoDB to talk to: alone, as a replica set, and as the mongos of a
// cluster.
//
// No mongod can be had from a package registry, so what answers is FerretDB 1.24 behind fronts of ours,
// unless SCAIVAULT_TEST_MONGODB_URL names a real one (see Real). FerretDB is real in this: the wire
// protocol, SCRAM-SHA-256, users that come and go (createUser, dropUser, updateUser and their errors),
// and data. It has no roles, no sessions, no sets. The fronts do what it lacks, from MongoDB's
// documentation and source, and this is emulated, not real:
//
//   - Roles: createRole, dropRole and rolesInfo keep a store of roles; the roles of createUser must exist
//     (RoleNotFound), in one critical section with their drop; those that MongoDB brings are known by
//     name, with the actions that the tests need.
//   - What a user is beyond its password: roles, customData, usersInfo with filter and forAllDBs.
//   - Authorization: every command is refused (Unauthorized) unless the roles of whoever logged in on
//     the connection allow it; commands that are not known here are refused (CommandNotFound).
//     connectionStatus shows the privileges.
//   - Ends: the next command on a connection whose user was dropped is refused, as a mongod does.
//     Which user that is, is read from saslStart; the login itself is FerretDB's to judge.
//   - Operations: a find whose $where sleeps is under way until it ends by itself, by killOp, or by
//     killAllSessionsByPattern; $currentOp lists it.
//   - What a server says of itself: AsAtlas, Saying.
//   - Sets: several fronts of one FerretDB. Secondaries refuse writes (NotWritablePrimary), and may lag:
//     then they go on with the users and roles that they knew. A write that no majority of running
//     members can have gets a writeConcernError. Logins on a member that lags are still judged by the
//     one FerretDB, and data never lag.
//   - Clusters: several mongos of one FerretDB. Each remembers users for 30 seconds, or until
//     invalidateUserCache; config.mongos lists them.
//
// Not emulated at all: transactions, elections, rollback, what a mongod writes to its log.
//
// Every server is private: its own folder, its own ports on 127.0.0.1. It dies with the process that
// started it.
package mongotest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// TB is the part of testing.TB that mongotest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	TempDir() string
}

// The user of every server here who may do everything.
const (
	adminName     = "administrator"
	adminPassword = "administrator-of-the-test"
	adminDB       = "admin"

	// adminConnections are as many as any test wants at once.
	adminConnections = 32
)

// Server is what tests talk to.
type Server struct {
	// Members are the fronts: the primary first, then the secondaries; or all mongos. Empty for a real
	// MongoDB.
	Members []*Member

	address string
	login   [2]string
	ca, key []byte
	world   *world
	ferret  *ferret
	direct  *mongo.Client // as the administrator
}

// Real is the URL of a real MongoDB on this machine, with an administrator's credentials, on which to
// test; empty without one. Tests leave it as it was, but for an empty collection. The command serve runs
// one of those here as if it were such.
func Real() string { return os.Getenv("SCAIVAULT_TEST_MONGODB_URL") }

// form describes a server.
type form struct {
	set, routers int // numbers of members
	tls          bool
	clientCerts  bool
	atlas        bool
	said         bson.D // in every hello
}

// Option changes how a server is started.
type Option func(*form)

// AsSet makes a replica set of so many members.
func AsSet(members int) Option { return func(f *form) { f.set = members } }

// AsCluster makes a sharded cluster of so many mongos.
func AsCluster(routers int) Option { return func(f *form) { f.routers = routers } }

// WithTLS makes the server talk TLS only, with a certificate for 127.0.0.1 and localhost that Server.CA
// verifies.
func WithTLS() Option { return func(f *form) { f.tls = true } }

// WithClientCertificates makes it talk TLS only to those who show a certificate that Server.CA verifies.
func WithClientCertificates() Option { return func(f *form) { f.tls, f.clientCerts = true, true } }

// AsAtlas makes a server that says of itself that it is MongoDB's own service.
func AsAtlas() Option { return func(f *form) { f.atlas = true } }

// Saying sets fields of what every member says of itself in hello.
func Saying(fields bson.D) Option { return func(f *form) { f.said = fields } }

// SetName is the name of every replica set here.
const SetName = "rs0"

// Start runs a server until the end of the test.
func Start(t TB, opts ...Option) *Server {
	t.Helper()
	var f form
	for _, option := range opts {
		option(&f)
	}
	s := &Server{login: [2]string{adminName, adminPassword}}
	if Real() != "" && len(opts) == 0 {
		s.reach(t, Real())
		return s
	}
	s.world = newWorld(f)
	s.startFerret(t)
	s.startFronts(t, f)
	s.direct = s.client(s.address, adminName, adminPassword, adminDB, adminConnections)
	t.Cleanup(func() { disconnect(s.direct) })
	return s
}

// reach uses a MongoDB that is there.
func (s *Server) reach(t TB, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "mongodb" || u.User == nil || u.Port() == "" || u.Path != "" || u.RawQuery != "" || !net.ParseIP(u.Hostname()).IsLoopback() {
		t.Fatalf("SCAIVAULT_TEST_MONGODB_URL is not mongodb://administrator:password@127.0.0.1:port: one on this machine, without TLS")
	}
	password, _ := u.User.Password()
	s.address, s.login = u.Host, [2]string{u.User.Username(), password}
	s.direct = s.client(s.address, s.login[0], s.login[1], adminDB, adminConnections)
	t.Cleanup(func() { disconnect(s.direct) })
}

func disconnect(c *mongo.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = c.Disconnect(ctx) // the server may be gone
}

// Addr is host and port of the first member.
func (s *Server) Addr() string { return s.address }

// URL is how the administrator reaches it.
func (s *Server) URL() string {
	return (&url.URL{Scheme: "mongodb", User: url.UserPassword(s.login[0], s.login[1]), Host: s.address}).String()
}

// CA is the PEM of the certificate that verifies the server; nil without TLS.
func (s *Server) CA() []byte { return s.ca }

// Key is the PEM of the private key of that certificate, which clients may show, too.
func (s *Server) Key() []byte { return s.key }

// Client is the official client as a user of a database, with one connection to the first member.
func (s *Server) Client(user, password, database string) *mongo.Client {
	return s.ClientAt(s.address, user, password, database)
}

// ClientAt is Client for a member.
func (s *Server) ClientAt(address, user, password, database string) *mongo.Client {
	return s.client(address, user, password, database, 1)
}

func (s *Server) client(address, user, password, database string, connections uint64) *mongo.Client {
	o := options.Client().SetHosts([]string{address}).SetDirect(true).SetMaxPoolSize(connections).SetRetryReads(false).SetRetryWrites(false).
		SetServerSelectionTimeout(20 * time.Second).
		SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", AuthSource: database, Username: user, Password: password, PasswordSet: true})
	if s.ca != nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(s.ca)
		cfg := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		if pair, err := tls.X509KeyPair(s.ca, s.key); err == nil {
			cfg.Certificates = []tls.Certificate{pair}
		}
		o.SetTLSConfig(cfg)
	}
	client, err := mongo.Connect(o)
	if err != nil {
		panic(err) // nothing is dialled yet, and the options are ours
	}
	return client
}

// Do runs a command as the administrator and gives its answer.
func (s *Server) Do(t TB, database string, command bson.D) bson.Raw {
	t.Helper()
	answer, err := s.Try(database, command)
	if err != nil {
		t.Fatalf("%s: %v", command[0].Key, err)
	}
	return answer
}

// Try is Do for a command that may fail.
func (s *Server) Try(database string, command bson.D) (bson.Raw, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	answer, err := s.direct.Database(database).RunCommand(ctx, command).Raw()
	if mongo.IsNetworkError(err) { // the connection had been broken by the test, while it rested
		return s.direct.Database(database).RunCommand(ctx, command).Raw()
	}
	return answer, err
}

// Users are the names of the users of all databases.
func (s *Server) Users(t TB) []string {
	t.Helper()
	var found struct {
		Users []struct {
			Name string `bson:"user"`
		} `bson:"users"`
	}
	answer := s.Do(t, adminDB, bson.D{{Key: "usersInfo", Value: bson.D{{Key: "forAllDBs", Value: true}}}})
	if err := bson.Unmarshal(answer, &found); err != nil {
		t.Fatalf("usersInfo: %v", err)
	}
	names := make([]string, len(found.Users))
	for i, u := range found.Users {
		names[i] = u.Name
	}
	return names
}
