package failpoints_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/mongotest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestMongoDBCrashes kills the server between the steps of an issuance, a revocation and a root rotation
// in MongoDB.
func TestMongoDBCrashes(t *testing.T) {
	t.Parallel()
	points := []failpoint.Point{
		failpoint.F2, failpoint.F5, failpoint.F6, failpoint.R1, failpoint.R2, failpoint.R3,
		failpoint.RootKept, failpoint.RootSent, failpoint.RootSet, failpoint.RootProved, failpoint.RootPromoted,
	}
	for _, s := range everywhere() {
		if !slices.Contains(points, s.point) {
			continue
		}
		t.Run(string(s.point), func(t *testing.T) {
			t.Parallel()
			role := newRole()
			inMongoDB(t, role).play(t, s, role, vaulttest.StartProgram(t, vaulttest.Failing(t)))
		})
	}
}

// inMongoDB starts a server with the root of the guide and something to read.
func inMongoDB(t *testing.T, role string) target {
	t.Helper()
	source := mongotest.Start(t)
	source.Do(t, "app", bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{bson.D{}}}})
	return target{
		engine: "database",
		config: client.Document{"plugin": "mongodb", "connection_url": "mongodb://{{username}}:{{password}}@" + source.Addr()},
		form:   client.Document{"database": "app", "roles": []map[string]string{{"role": "read", "db": "app"}}},
		root:   rootOf(source.SetUp(t, "../../docs/engines/mongodb.md", "scaivault")),
		users: func(t *testing.T) []string {
			t.Helper()
			return slices.DeleteFunc(source.Users(t), func(name string) bool { return !strings.HasPrefix(name, "v_"+role+"_") })
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			c := source.Client(data["username"], data["password"], "app")
			defer func() { _ = c.Disconnect(context.Background()) }()
			return c.Database("app").RunCommand(t.Context(), bson.D{{Key: "find", Value: "things"}}).Err()
		},
	}
}
