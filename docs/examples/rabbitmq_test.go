// Package examples_test runs the scripts of this folder through the suite of all engines.
package examples_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/dial"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/rabbitmqtest"
)

func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{script.ChildFlag}) {
		os.Exit(script.Child(os.Stdin, os.Stdout))
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait for time-outs most of their time
		panic(err)
	}
	os.Exit(m.Run())
}

// patience is what a call gets that the suite expects to fail.
const patience = 10 * time.Second

// host permits scripts what is on this machine.
func host() custom.Host {
	return custom.Host{ScriptHosts: []string{"127.0.0.1"}, ScriptNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

// open opens an engine with a script of this folder.
func open(t *testing.T, file, installation string, o enginetest.Opening, address string, root map[string]statement.Secret, extra map[string]any) engine.Engine {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if o.Address != "" {
		address = o.Address
	}
	document := map[string]any{
		"runtime": "starlark", "script": string(text), "http_hosts": []string{"http://" + address},
		"parameters": map[string]string{"url": "http://" + address}, "operation_timeout": "60s",
	}
	if o.OperationTimeout != 0 { // a busy machine needs more for four requests and a process
		document["operation_timeout"] = max(o.OperationTimeout, patience).String()
	}
	for name, value := range extra {
		document[name] = value
	}
	raw, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	if o.Root != nil {
		root = o.Root
	}
	e, err := custom.Type{Host: host()}.Open(t.Context(), engine.Options{
		Installation: installation, EngineID: ident.New(ident.Engine), EngineName: "scripted", Node: enginetest.Node, Epoch: o.Epoch,
		Config: raw, Root: root, Namer: statement.NewNamer(installation, []byte("key"), nil),
		Dial: (&dial.Dialer{Policy: dial.Policy{Private: true}}).DialContext, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return e
}

func role(t *testing.T, document string) engine.Role {
	t.Helper()
	r, err := custom.Type{}.ParseRole(json.RawMessage(document))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Users of a real RabbitMQ, with the one right that the guide asks for root.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	server, err := rabbitmqtest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	enginetest.Run(t, func(t *testing.T) *enginetest.Target {
		installation := "inst_" + rand.Text()
		rootName, rootPassword := "root-"+rand.Text(), rand.Text()
		if err := server.AddUser(rootName, rootPassword, "administrator"); err != nil {
			t.Fatal(err)
		}
		root := map[string]statement.Secret{"username": statement.Secret(rootName), "password": statement.Secret(rootPassword)}
		login := func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			session, err := server.Login(ctx, data["username"].Reveal(), data["password"].Reveal())
			if err != nil {
				return nil, err // no session in the interface
			}
			return session, nil
		}
		return &enginetest.Target{
			Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
				return open(t, "rabbitmq.star", installation, o, server.API, root, nil)
			},
			Elsewhere: func(t *testing.T) engine.Engine {
				return open(t, "rabbitmq.star", installation, enginetest.Opening{}, server.API, root, map[string]any{"source_id": "elsewhere"})
			},
			Address: server.API,
			Role:    role(t, `{"parameters": {"configure": ".*", "write": ".*", "read": ".*"}}`),
			Login:   login,
			Sessions: map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session{
				"idle": func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
					session, err := login(t.Context(), data)
					if err != nil || !session.Works(t.Context()) {
						t.Fatalf("log in: %v", err)
					}
					return session
				},
			},
			Exists: func(t *testing.T, name string) bool {
				users, err := server.Users()
				if err != nil {
					t.Fatal(err)
				}
				return slices.Contains(users, name)
			},
			Plant: func(t *testing.T, name string) {
				if err := server.AddUser(name, "theirs", "management"); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _, _, _ = server.Ask("DELETE", "/api/users/"+name, nil) })
			},
			Log: func(t *testing.T) string {
				text, err := server.Log()
				if err != nil {
					t.Fatal(err)
				}
				return text
			},
			Say: func(t *testing.T, text string) {
				if err := server.AddUser(text, "x", ""); err != nil { // users that are made are logged
					t.Fatal(err)
				}
			},
			Exceptions: map[string]string{
				"RevokeBatch":  "a script revokes one by one",
				"Renew":        "RabbitMQ's users have no end",
				"PrepareTwice": "what a script does with a role's parameters is its own affair",
				"RotateRoot":   "a root that only a script knows how to use is rotated by hand",
				"Clock":        "a script is asked for no time",
			},
		}
	})
}
