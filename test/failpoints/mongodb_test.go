package failpoints_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/mongotest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// mongoWorld is a server with one engine for MongoDB and one role.
type mongoWorld struct {
	node   *vaulttest.Server
	source *mongotest.Server
	root   string
}

const mongoGuide = "../../docs/engines/mongodb.md"

func newMongoWorld(t *testing.T) *mongoWorld {
	t.Helper()
	w := &mongoWorld{node: vaulttest.StartProgram(t, vaulttest.Failing(t)), source: mongotest.Start(t)}
	w.root = w.source.SetUp(t, mongoGuide, "scaivault")
	w.source.Do(t, "app", bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{bson.D{}}}})
	if err := w.configure(t.Context(), w.node.Admin(t)); err != nil {
		t.Fatalf("set the server up: %v; its output: %s", err, tail(w.node.Output()))
	}
	return w
}

func (w *mongoWorld) configure(ctx context.Context, admin *client.Client) error {
	if _, err := admin.WriteSecret(ctx, rootPath, api.SecretWrite{Data: map[string]json.RawMessage{
		"username": json.RawMessage(fmt.Sprintf("%q", w.root)), "password": json.RawMessage(`"a-long-one"`)}}); err != nil {
		return err
	}
	policy, err := admin.CreatePolicy(ctx, api.PolicyRequest{Name: "engines", Rules: []api.PolicyRule{{PathPattern: rootPath, Permissions: []api.Permission{"read", "rotate"}}}})
	if err != nil {
		return err
	}
	if _, err := admin.BindPolicy(ctx, policy.ID, api.BindingRequest{IdentityType: "system", IdentityID: "dynamic:db"}); err != nil {
		return err
	}
	config := fmt.Sprintf(`{"plugin": "mongodb", "root_credentials_path": %q, "operation_timeout": %q, "connection_url": "mongodb://{{username}}:{{password}}@%s"}`, rootPath, operationTimeout, w.source.Addr())
	if _, err := admin.CreateEngine(ctx, api.EngineRequest{Name: "db", Type: "database", Config: json.RawMessage(config)}); err != nil {
		return err
	}
	_, err = admin.CreateRole(ctx, "db", client.Document{
		"name": "reader", "database": "app", "roles": []map[string]string{{"role": "read", "db": "app"}}, "default_ttl": life.String(), "max_ttl": longest.String(),
	})
	return err
}

// issue asks for a credential, which must read.
func (w *mongoWorld) issue(t *testing.T) api.Credential {
	t.Helper()
	var c api.Credential
	var err error
	eventually(t, func() string { return fmt.Sprintf("a credential: %v; output: %s", err, tail(w.node.Output())) }, func() bool {
		c, err = w.node.Admin(t).GenerateCredential(t.Context(), "db", "reader", api.CredsRequest{})
		return err == nil
	})
	if err := w.login(t, c.Data["username"], c.Data["password"]); err != nil {
		t.Errorf("%s does not read: %v", c.Data["username"], err)
	}
	return c
}

func (w *mongoWorld) login(t *testing.T, username, password string) error {
	t.Helper()
	c := w.source.Client(username, password, "app")
	defer func() { _ = c.Disconnect(context.Background()) }()
	return c.Database("app").RunCommand(t.Context(), bson.D{{Key: "find", Value: "things"}}).Err()
}

// TestMongoDBCrashes kills the server between the steps of an issuance, a revocation and a root rotation
// in MongoDB. When it has gone on, leases and users agree, and the root works.
func TestMongoDBCrashes(t *testing.T) {
	t.Parallel()
	issuing := func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.GenerateCredential(ctx, "db", "reader", api.CredsRequest{})
		return err
	}
	revoking := func(ctx context.Context, c *client.Client, subject string) error {
		_, err := c.RevokeLease(ctx, subject, patience)
		return err
	}
	rotating := func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.RotateRoot(ctx, "db")
		return err
	}
	for p, request := range map[failpoint.Point]func(context.Context, *client.Client, string) error{
		failpoint.F2: issuing, failpoint.F5: issuing, failpoint.F6: issuing,
		failpoint.R1: revoking, failpoint.R2: revoking, failpoint.R3: revoking,
		failpoint.RootKept: rotating, failpoint.RootSent: rotating, failpoint.RootSet: rotating, failpoint.RootProved: rotating, failpoint.RootPromoted: rotating,
	} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			w := newMongoWorld(t)
			subject := w.issue(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			w.node.Arm(t, string(p)+" kill")
			if err := request(ctx, w.node.Admin(t), subject.LeaseID); err == nil {
				t.Fatalf("the request was answered as if %s were not there", p)
			}
			w.node.AwaitDeath(t)
			w.node.Arm(t)
			w.node.Run(t)
			w.issue(t)
			w.agree(t)
			for range 2 { // the second time nothing is left to do
				if result, err := w.node.Admin(t).RevokePrefix(t.Context(), "db/reader", patience/2); err != nil || result.Pending != 0 {
					t.Errorf("revoke what is left: %+v, %v", result, err)
				}
			}
			if left := w.users(t); len(left) != 0 {
				t.Errorf("users are left after all was revoked: %v", left)
			}
		})
	}
}

// agree waits until all that the kill cut off is decided, and compares leases, users and the trail.
func (w *mongoWorld) agree(t *testing.T) {
	t.Helper()
	both := &world{nodes: []*vaulttest.Server{w.node}}
	var leases []api.Lease
	eventually(t, func() string { return fmt.Sprintf("all is decided: %+v; output: %s", leases, tail(w.node.Output())) }, func() bool {
		leases = both.leases(t, w.node)
		for _, l := range leases {
			if l.Status == api.LeaseIssuing || l.Status == api.LeaseRevoking {
				return false
			}
		}
		return true
	})
	users := w.users(t)
	for _, l := range leases {
		if there := users[l.Username]; there != (l.Status == api.LeaseActive) {
			t.Errorf("lease %s is %s, and its user is there: %t", l.LeaseID, l.Status, there)
		}
		delete(users, l.Username)
	}
	for name := range users {
		t.Errorf("user %s has no lease", name)
	}
	both.compareTrail(t, w.node, leases)
}

// users are those of credentials.
func (w *mongoWorld) users(t *testing.T) map[string]bool {
	t.Helper()
	users := map[string]bool{}
	for _, name := range w.source.Users(t) {
		if strings.HasPrefix(name, "v_") {
			users[name] = true
		}
	}
	return users
}
