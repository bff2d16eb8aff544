package mongodb

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

const (
	// memberConnections bounds the connections to each single member.
	memberConnections = 2
	// farewell is how long a connection in use may hold up the end of the others.
	farewell = 5 * time.Second
)

// connector makes connections to the source.
type connector struct {
	config *config
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	tls    *tls.Config // nil: in clear
	name   string      // of the connections, as the source shows them
	srv    *directory  // nil where the URL itself lists the hosts
}

func newConnector(ctx context.Context, c *config, o engine.Options, dns resolver) (*connector, error) {
	made := &connector{
		config: c, dial: o.Dial,
		name: engine.ConnectionPrefix(o.Installation, o.Node) + strconv.FormatInt(o.Epoch, 10),
	}
	if c.target.srv {
		made.srv = &directory{name: c.target.hosts[0], lookup: dns}
	}
	var err error
	if c.target.tls {
		made.tls, err = c.TLS.Load(ctx, o)
	}
	return made, err
}

// server is one server, or the source as one: then what is sent goes to the primary of a set, or to
// any mongos.
type server struct {
	client *mongo.Client
	hosts  []string // that it was made from
}

// whole connects to the source as one.
func (c *connector) whole(ctx context.Context, as engine.Login) (*server, error) {
	place, err := c.place(ctx)
	if err != nil {
		return nil, err
	}
	o := c.options(place, as).SetMaxPoolSize(uint64(*c.config.MaxOpenConnections))
	if place.set != "" {
		o.SetReplicaSet(place.set)
	}
	return connect(o, place.hosts)
}

// member connects to one server alone. The driver does not tell one that refuses from one that is slow,
// and the others need not wait for it.
func (c *connector) member(ctx context.Context, address string, as engine.Login) (*server, error) {
	place, err := c.place(ctx)
	if err != nil {
		return nil, err
	}
	place.hosts = []string{address}
	o := c.options(place, as).SetDirect(true).SetMaxPoolSize(memberConnections).SetServerSelectionTimeout(c.config.ConnectTimeout.Std())
	return connect(o, place.hosts)
}

// place is where the source is, and how root logs in there.
type place struct {
	hosts      []string
	set        string
	authSource string
}

func (c *connector) place(ctx context.Context) (place, error) {
	t := c.config.target
	p := place{t.hosts, t.set, t.authSource}
	if c.srv != nil {
		listed, err := c.srv.list(ctx)
		if err != nil {
			return p, err
		}
		p.hosts = listed.hosts
		if p.set == "" {
			p.set = listed.set
		}
		if p.authSource == "" {
			p.authSource = listed.authSource
		}
	}
	if p.authSource == "" {
		p.authSource = adminDB
	}
	return p, nil
}

// connect makes a client, which opens connections when they are needed.
func connect(o *options.ClientOptions, hosts []string) (*server, error) {
	client, err := mongo.Connect(o)
	if err != nil {
		return nil, misconfigured("connect to the source: the driver refuses the configuration", err)
	}
	return &server{client, hosts}, nil
}

// options are what all clients have. Only SCRAM-SHA-256 is spoken: the password is not sent, and the
// server proves that it knows it. What the driver would log is thrown away, whatever its environment
// says.
func (c *connector) options(p place, as engine.Login) *options.ClientOptions {
	o := options.Client().SetHosts(p.hosts).SetDialer(c).SetAppName(c.name).
		SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", AuthSource: p.authSource, Username: as.Username, Password: as.Password.Reveal(), PasswordSet: true}).
		SetConnectTimeout(c.config.ConnectTimeout.Std()).SetServerSelectionTimeout(c.config.OperationTimeout.Std()).
		SetRetryWrites(false).SetLoggerOptions(options.Logger().SetSink(discard{}))
	if c.tls != nil {
		o.SetTLSConfig(c.tls.Clone()) // the driver verifies the name of each host that it dials
	}
	return o
}

type discard struct{}

func (discard) Info(int, string, ...any)    {}
func (discard) Error(error, string, ...any) {}

// DialContext implements options.ContextDialer: of hosts that the source itself lists, too, none is
// dialled in clear that must not be.
func (c *connector) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if !c.config.mayDial(address) {
		return nil, errors.New(inClear(address))
	}
	socket, err := c.dial(ctx, network, address)
	if err != nil || !failpoint.Present {
		return socket, err
	}
	return hitting{socket}, nil
}

// hitting is a socket that knows when a command is out whose answer the tests want to lose.
type hitting struct{ net.Conn }

func (h hitting) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	for name, points := range map[string][]failpoint.Point{
		"createUser": {failpoint.F3, failpoint.F5}, "dropUser": {failpoint.R2}, "updateUser": {failpoint.RootSent},
	} {
		if bytes.Contains(b, []byte("\x02"+name+"\x00")) {
			for _, p := range points {
				failpoint.Hit(p)
			}
		}
	}
	return n, err
}

// runTries bounds how often a command is sent: connections that rested while the source was restarted
// are all dead, and each is found out by itself.
const runTries = 3

// run sends one command and gives the answer. The driver bounds it at the source, too, by maxTimeMS up
// to the end of ctx. A command is a document, never a text: nothing in it needs quoting. Where the
// connection is lost it is sent again, but for what makes users and roles: of that nothing may come late
// that nobody waits for (fence.go). All else comes to the same when it is executed twice.
func (s *server) run(ctx context.Context, database string, command bson.D) (bson.Raw, error) {
	for tried := 1; ; tried++ {
		answer, err := s.client.Database(database).RunCommand(ctx, command).Raw()
		again := unsent(err) || mongo.IsNetworkError(err) && command[0].Key != "createUser" && command[0].Key != "createRole"
		if !again || tried == runTries || ctx.Err() != nil {
			return answer, err
		}
	}
}

// write sends a command that changes users or roles, and waits until a majority of the members has it.
func (s *server) write(ctx context.Context, database string, command bson.D) error {
	_, err := s.run(ctx, database, append(command, bson.E{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}}))
	return err
}

// leave closes in its own time: nobody waits for what is still under way.
func (s *server) leave() { go s.close() }

// close ends all connections; those in use have a moment.
func (s *server) close() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_ = s.client.Disconnect(ctx) // they are closed in any case
}
