package mysql_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/mysql"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// TLS verifies who answers, and for whom.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := mysqltest.Start(t, kind, mysqltest.WithTLS())
			s := newSource(t, server)
			s.secrets = map[string]map[string]statement.Secret{"infra/ca": {"certificate": statement.Secret(server.CA())}}
			_, port, _ := net.SplitHostPort(server.Addr())
			at := func(host, parameters string) fields {
				return fields{"connection_url": "mysql://{{username}}:{{password}}@" + net.JoinHostPort(host, port) + "/" + parameters, "tls_ca_path": "infra/ca"}
			}
			// The certificate is for localhost and 127.0.0.1.
			for host, parameters := range map[string]string{"127.0.0.1": "", "localhost": "?tls=true", "127.0.0.2": "?tls=verify-ca"} {
				options := s.options(at(host, parameters))
				options.Dial = s.dial
				e := open(t, options)
				c := issue(t, e, s.reader(t))
				if h := e.Check(t.Context()); h.Status != "healthy" || h.TLS != "verified" || len(h.Warnings) > 0 {
					t.Errorf("%s %s: health %+v", host, parameters, h)
				}
				revoke(t, e, c.recipe)
			}
			for name, config := range map[string]fields{
				"another host":      at("127.0.0.2", "?tls=true"),
				"another authority": {"connection_url": "mysql://{{username}}:{{password}}@" + server.Addr() + "/?tls=verify-ca"},
			} {
				options := s.options(config)
				options.Dial = s.dial
				if _, err := (mysql.Type{}).Open(t.Context(), options); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "certificate") {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// dial reaches the source under whatever name.
func (s *source) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, s.server.Addr())
}

// Without TLS to another machine the password is not given to a server that asks for
// it under a key of its own.
func TestPasswordIsWithheld(t *testing.T) {
	t.Parallel()
	onMySQL(t, func(t *testing.T, s *source) {
		open := func(host string) error {
			options := s.options(fields{"connection_url": "mysql://{{username}}:{{password}}@" + host + ":3306/?tls=false"})
			options.Dial = s.dial
			e, err := mysql.Type{}.Open(t.Context(), options)
			if err == nil {
				e.Close()
			}
			return err
		}
		s.server.Exec(t, "FLUSH PRIVILEGES") // the server knows no passwords but by asking now
		if err := open("db.example"); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("over a network: %v", err)
		}
		if err := open("localhost"); err != nil {
			t.Errorf("on this machine: %v", err)
		}
	})
}

// A server that takes no changes is none to make accounts on; of several hosts the
// one that does is used.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSource(t, mysqltest.Start(t, kind))
			e := s.open(t, nil)
			c := issue(t, e, s.reader(t))
			s.server.Exec(t, "SET GLOBAL read_only = ON")
			_, err := e.Issue(t.Context(), plan(t, e, s.reader(t)))
			if engine.KindOf(err) != engine.WrongServer {
				t.Errorf("issue: %v", err)
			}
			if _, err := e.Revoke(t.Context(), c.recipe); engine.KindOf(err) != engine.WrongServer {
				t.Errorf("revoke: %v", err)
			}
			if h := e.Check(t.Context()); h.Status != "misconfigured" || !strings.Contains(h.Error, "read_only") {
				t.Errorf("health: %+v", h)
			}
			if _, err := (mysql.Type{}).Open(t.Context(), s.options(nil)); engine.KindOf(err) != engine.WrongServer {
				t.Errorf("open: %v", err)
			}
			s.server.Exec(t, "SET GLOBAL read_only = OFF")
			revoke(t, e, c.recipe)
			s.mustBeGone(t, c)
		})
	}
}

// The source is known again after a restart, which the engine gets over; another
// server of the same address is not taken for it.
func TestIdentity(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSource(t, mysqltest.Start(t, kind, mysqltest.WithArguments("--innodb-flush-log-at-trx-commit=1")))
			e := s.open(t, nil)
			c := issue(t, e, s.reader(t))
			s.server.Restart(t)
			s.mustWork(t, c)
			if id := s.open(t, nil).SourceID(); id != e.SourceID() || id == "" {
				t.Errorf("the source is %q, and was %q", id, e.SourceID())
			}
			eventually(t, "the engine goes on after a restart", func() bool {
				return e.Check(t.Context()).Status == "healthy"
			})
			moved := shared(t, kind)
			options := s.options(nil)
			elsewhere := *moved
			elsewhere.namer = s.namer
			other := elsewhere.open(t, nil)
			if other.SourceID() == e.SourceID() {
				t.Error("two servers have the same identity")
			}
			if _, err := other.Lookup(t.Context(), c.recipe); engine.KindOf(err) != engine.WrongServer {
				t.Errorf("look up at another server: %v", err)
			}
			// The address leads elsewhere now.
			behind := s.server
			options.Root = map[string]statement.Secret{"username": statement.Secret(s.root), "password": rootPassword}
			options.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				var dialer net.Dialer
				return dialer.DialContext(ctx, network, behind.Addr())
			}
			floating := open(t, options)
			twin := newSourceNamed(t, moved.server, s.root, s.app)
			behind = twin.server
			s.server.Restart(t) // ends its connections
			eventually(t, "another server is told from the one that was opened", func() bool {
				_, err := floating.Issue(t.Context(), plan(t, floating, s.reader(t)))
				return engine.KindOf(err) == engine.WrongServer
			})
			revoke(t, e, c.recipe)
			s.mustBeGone(t, c)
		})
	}
}

// What the configuration cannot be used for is said, without the password.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		for name, change := range map[string]func(o *engine.Options){
			"a wrong password": func(o *engine.Options) { o.Root["password"] = "wrong-password" },
			"no password":      func(o *engine.Options) { delete(o.Root, "password") },
			"nobody":           func(o *engine.Options) { o.Root["username"] = "nobody" },
			"no such database": func(o *engine.Options) {
				o.Config = s.options(fields{"connection_url": s.url + "nosuch"}).Config
			},
		} {
			options := s.options(fields{"connect_timeout": "10s"})
			change(&options)
			_, err := mysql.Type{}.Open(t.Context(), options)
			if engine.KindOf(err) != engine.Misconfigured || strings.Contains(err.Error(), "wrong-password") || strings.Contains(err.Error(), rootPassword) {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.server.Exec(t, "CREATE USER 'poor_"+s.root+"'@'%' IDENTIFIED BY '"+rootPassword+"'")
		options := s.options(nil)
		options.Root["username"] = statement.Secret("poor_" + s.root)
		_, err := mysql.Type{}.Open(t.Context(), options)
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "GRANT SELECT ON mysql.") {
			t.Errorf("a root that may see no accounts: %v", err)
		}
	})
}

// Health is good with the root of the guide, and names each right that it lacks.
func TestHealth(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		if h := s.open(t, nil).Check(t.Context()); h.Status != "healthy" || len(h.Warnings)+len(h.MissingGrants) > 0 || h.TLS != "none" || h.ClockOffset.Abs() > time.Minute {
			t.Errorf("health with the root of the guide: %+v", h)
		}
		rights := []string{"CREATE USER", "PROCESS"}
		if s.server.Kind == mysqltest.MySQL {
			rights = append(rights, "ROLE_ADMIN")
		}
		for _, right := range rights {
			s.server.Exec(t, "REVOKE "+right+" ON *.* FROM '"+s.root+"'@'%'")
			h := s.open(t, nil).Check(t.Context())
			if want := "GRANT " + right + " ON *.* TO '" + s.root + "'@'%'"; h.Status != "misconfigured" || len(h.MissingGrants) != 1 || h.MissingGrants[0] != want {
				t.Errorf("without %s: %+v", right, h)
			}
			s.server.Exec(t, "GRANT "+right+" ON *.* TO '"+s.root+"'@'%'")
		}
		s.server.Exec(t, "GRANT ALL ON *.* TO '"+s.root+"'@'%'")
		if h := s.open(t, nil).Check(t.Context()); h.Status != "healthy" || !strings.Contains(strings.Join(h.Warnings, ";"), "may do everything") {
			t.Errorf("with a root that may do everything: %+v", h)
		}
	})
}
