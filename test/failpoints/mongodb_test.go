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
)

// TestCrashMatrixMongoDB kills the server at every point that is reached with MongoDB, alone and as a set.
func TestCrashMatrixMongoDB(t *testing.T) {
	t.Parallel()
	roles := client.Document{"database": "app", "roles": []map[string]string{{"role": "read", "db": "app"}}}
	privileges := client.Document{"database": "app", "privileges": []any{
		map[string]any{"resource": map[string]string{"db": "app", "collection": "things"}, "actions": []string{"find"}}}}
	alone := variant{name: "alone", scenarios: everywhere(),
		short:  []failpoint.Point{failpoint.F4, failpoint.F5, failpoint.Disabled, failpoint.R2, failpoint.RootSent, failpoint.RootSet},
		target: func(t *testing.T, role string) target { return inMongoDB(t, privileges, role) }}
	set := variant{name: "set", scenarios: everywhere(),
		target: func(t *testing.T, role string) target { return inMongoDB(t, roles, role, mongotest.AsSet(3)) }}
	playAll(t, append(both(set), alone), map[failpoint.Point]string{
		failpoint.Emptied: "a user of MongoDB owns nothing",
	})
}

// inMongoDB starts a server with the root of the guide and something to read.
func inMongoDB(t *testing.T, form client.Document, role string, opts ...mongotest.Option) target {
	t.Helper()
	source := mongotest.Start(t, opts...)
	source.Do(t, "app", bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{bson.D{}}}})
	return target{
		engine: "database",
		config: client.Document{"plugin": "mongodb", "connection_url": "mongodb://{{username}}:{{password}}@" + source.Addr()},
		form:   form,
		root:   rootOf(source.SetUp(t)),
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
