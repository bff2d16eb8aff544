package e2e_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/mongotest"
)

// TestMongoDB is the life of credentials in MongoDB: sessions are dead when the revocation is answered,
// at every member of a set, and credentials that expire while ScaiVault is dead are ended when it is
// back.
func TestMongoDB(t *testing.T) {
	t.Parallel()
	v, server := newVault(t), mongotest.Start(t, mongotest.AsSet(3))
	v.mongoEngine(t, server)
	app := v.account(t, "app", "dynamic/store/reader")

	c := v.issue(t, app, "store", "reader", time.Minute)
	var open []*mongo.Client
	for _, m := range server.Members {
		open = append(open, readsMongo(t, server, m.Addr(), c))
	}
	v.revoke(t, c)
	for i, session := range open {
		if findThings(t.Context(), session) == nil {
			t.Errorf("an open session at member %d goes on after the revocation was answered", i)
		}
	}
	mustBeRefusedByMongo(t, server, c)

	longer := api.Duration(30 * time.Minute)
	kept := v.issue(t, app, "store", "reader", time.Minute)
	if _, err := app.RenewLease(t.Context(), kept.lease, api.RenewRequest{Increment: &longer}); err != nil {
		t.Errorf("renew: %v", err)
	}
	if _, err := v.admin.RotateRoot(t.Context(), "store"); err != nil {
		t.Errorf("rotate the root: %v", err)
	}
	server.StepDown(server.Members[1])

	short := v.issue(t, app, "store", "reader", time.Second)
	v.Kill(t)
	time.Sleep(time.Until(short.expires))
	v.again(t)
	eventually(t, time.Minute, "who expired while ScaiVault was dead is refused", func() bool { return v.lease(t, short.lease).Status == api.LeaseRevoked })
	mustBeRefusedByMongo(t, server, short)
	readsMongo(t, server, server.Addr(), kept)
	v.revoke(t, kept)
	mustBeRefusedByMongo(t, server, kept)
	if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chain does not verify: %+v, %v", report, err)
	}
	if h, err := v.admin.EngineHealth(t.Context(), "store"); err != nil || h.Status != "healthy" || len(h.Warnings)+len(h.MissingGrants) > 0 {
		t.Errorf("health: %+v, %v", h, err)
	}
}

// TestMongoDBRefuses: a role that cannot be is refused when it is saved, with the part that is wrong; so
// is Atlas, and a way in clear.
func TestMongoDBRefuses(t *testing.T) {
	t.Parallel()
	v, server := newVault(t), mongotest.Start(t)
	v.mongoEngine(t, server)
	for says, roles := range map[string]any{
		"lacks db": []map[string]string{{"role": "read"}},
		"reed":     []map[string]string{{"role": "reed", "db": "app"}},
		"other":    []map[string]string{{"role": "read", "db": "other"}},
	} {
		_, err := v.admin.CreateRole(t.Context(), "store", client.Document{"name": "bad", "database": "app", "roles": roles})
		mustFail(t, says, err, "invalid_config")
		if err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s is not said: %v", says, err)
		}
	}
	for what, host := range map[string]string{"Atlas": "cluster0-shard-00-00.abcde.mongodb.net:27017/?tls=true", "encrypted": "10.1.2.3:27017"} {
		config, err := json.Marshal(map[string]string{"plugin": "mongodb", "connection_url": "mongodb://{{username}}:{{password}}@" + host, "root_credentials_path": rootPath("store")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "another", Type: "database", Config: config})
		mustFail(t, what, err, "invalid_config")
		if err != nil && !strings.Contains(err.Error(), what) {
			t.Errorf("%s is not said: %v", what, err)
		}
	}
}

// mongoEngine makes an engine with the root of the guide, and a role that reads.
func (v *vault) mongoEngine(t *testing.T, server *mongotest.Server) {
	t.Helper()
	root := server.SetUp(t)
	server.Do(t, "app", bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{bson.D{{Key: "one", Value: 1}}}}})
	v.database(t, "store", "mongodb", "mongodb://{{username}}:{{password}}@"+server.Addr(), root)
	v.role(t, "store", client.Document{"name": "reader", "database": "app", "roles": []map[string]string{{"role": "read", "db": "app"}}})
}

func findThings(ctx context.Context, c *mongo.Client) error {
	return c.Database("app").RunCommand(ctx, bson.D{{Key: "find", Value: "things"}}).Err()
}

// readsMongo reads as the credential at a member, by a session that stays open.
func readsMongo(t *testing.T, server *mongotest.Server, address string, c credential) *mongo.Client {
	t.Helper()
	session := server.ClientAt(address, c.username, c.password, "app")
	t.Cleanup(func() { _ = session.Disconnect(context.Background()) })
	if err := findThings(t.Context(), session); err != nil {
		t.Fatalf("%s does not read: %v", c.username, err)
	}
	err := session.Database("app").RunCommand(t.Context(), bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{bson.D{}}}}).Err()
	if err == nil || !strings.Contains(err.Error(), "not authorized") {
		t.Errorf("writing is not denied to a reader: %v", err)
	}
	return session
}

func mustBeRefusedByMongo(t *testing.T, server *mongotest.Server, c credential) {
	t.Helper()
	session := server.Client(c.username, c.password, "app")
	defer func() { _ = session.Disconnect(context.Background()) }()
	if err := findThings(t.Context(), session); err == nil || !strings.Contains(err.Error(), "AuthenticationFailed") {
		t.Errorf("%s is to be refused by the server, instead: %v", c.username, err)
	}
	if slices.Contains(server.Users(t), c.username) {
		t.Errorf("the user %s is still there", c.username)
	}
}
