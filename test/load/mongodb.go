package main

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mongotest"
	"github.com/scaivault/scaivault/test/servertest"
)

// mongoDB is the FerretDB that stands for a MongoDB in the tests, behind its front, which runs in
// this very process; or a real one.
type mongoDB struct {
	server  *mongotest.Server
	user    string          // root
	clients []*mongo.Client // as it, of one connection each
}

func newMongoDB(ctx context.Context, s *servertest.Stand) *mongoDB {
	m := &mongoDB{server: mongotest.Start(s)}
	m.user = m.server.SetUp(s)
	for range most {
		c := m.server.Client(m.user, servertest.GuidePassword, "admin")
		s.Cleanup(func() { _ = c.Disconnect(context.WithoutCancel(ctx)) }) // the server goes anyway
		m.clients = append(m.clients, c)
	}
	return m
}

func (*mongoDB) title() string {
	if mongotest.Real() != "" {
		return "MongoDB"
	}
	return "FerretDB 1.24 for MongoDB"
}

func (m *mongoDB) root() string { return m.user }

func (m *mongoDB) describe() (config map[string]any, role client.Document) {
	return map[string]any{"plugin": "mongodb", "connection_url": "mongodb://{{username}}:{{password}}@" + m.server.Addr()},
		client.Document{"database": database, "roles": []map[string]string{{"role": "read", "db": database}}}
}

// create makes a user as the engine does, which has one role more. MongoDB takes the password itself
// and makes the verifier.
func (m *mongoDB) create(ctx context.Context, caller int, name string) error {
	return m.run(ctx, caller, bson.D{
		{Key: "createUser", Value: name},
		{Key: "pwd", Value: statement.Password(nil).Reveal()},
		{Key: "roles", Value: bson.A{"read"}},
		{Key: "mechanisms", Value: bson.A{"SCRAM-SHA-256"}},
		{Key: "customData", Value: bson.D{{Key: "mark", Value: name}}},
	})
}

func (m *mongoDB) drop(ctx context.Context, names []string) error {
	next := handOut(names)
	_, err := times(ctx, min(8, len(names)), len(names), func(ctx context.Context, caller int) error {
		return m.run(ctx, caller, bson.D{{Key: "dropUser", Value: next()}})
	})
	return err
}

func (m *mongoDB) run(ctx context.Context, caller int, command bson.D) error {
	command = append(command, bson.E{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}})
	return m.clients[caller].Database(database).RunCommand(ctx, command).Err()
}
