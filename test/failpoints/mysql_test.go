package failpoints_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// TestCrashMatrixMySQL kills the server at every point that is reached with MySQL and MariaDB. Neither has
// transactions over its accounts: a source that makes them step by step must leave no more than one
// that does not.
func TestCrashMatrixMySQL(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			source := mysqltest.Start(t, kind, mysqltest.WithArguments("--event-scheduler=ON"))
			source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.items (id INT)")
			playAll(t, mysqlVariants(source), map[failpoint.Point]string{
				failpoint.Emptied: "nothing is taken from an account of MySQL before it is dropped: what it made is nobody's",
			})
		})
	}
}

// mysqlVariants are the forms of a role. How the root is rotated does not depend on them.
func mysqlVariants(source *mysqltest.Server) (all []variant) {
	in := func(form client.Document, expiry bool) func(t *testing.T, role string) target {
		return func(t *testing.T, role string) target { return inMySQL(t, source, form, role, expiry) }
	}
	privileges := client.Document{"privileges": []string{"SELECT ON app.*"}}
	statements := client.Document{"creation_statements": []string{"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "GRANT SELECT ON app.* TO '{{name}}'@'%'"}}
	making := []failpoint.Point{failpoint.F2, failpoint.F3, failpoint.F5, failpoint.F6, failpoint.Found}
	ending := []failpoint.Point{failpoint.R1, failpoint.Disabled, failpoint.R2, failpoint.R3, failpoint.Fenced}

	whole := slices.DeleteFunc(everywhere(), func(s scenario) bool { return s.point == failpoint.F4 }) // one message
	if source.Kind == mysqltest.MySQL {
		whole = append(whole, scenario{point: failpoint.F4, how: "making the group", reach: regrouping, found: regrouped})
	}
	all = append(all, both(variant{name: "privileges", scenarios: whole, target: in(privileges, false),
		short: []failpoint.Point{failpoint.F3, failpoint.F4, failpoint.R2, failpoint.RootSet, failpoint.RootProved}})...)
	all = append(all, both(variant{name: "statements", scenarios: of(everywhere(), append(append(making, failpoint.F4), ending...)...), target: in(statements, false),
		short: []failpoint.Point{failpoint.F4, failpoint.R2}})...)
	return append(all, both(variant{name: "events", scenarios: of(everywhere(), append(append(making, failpoint.N1, failpoint.N2, failpoint.N3), ending...)...), target: in(privileges, true),
		short: []failpoint.Point{failpoint.F5, failpoint.N2}})...)
}

// inMySQL makes the root of the guide, under a name of its own.
func inMySQL(t *testing.T, source *mysqltest.Server, form client.Document, role string, expiry bool) target {
	t.Helper()
	root := "root_" + role
	source.SetUp(t, root, "app")
	s := target{
		engine: "database",
		config: client.Document{"plugin": "mysql", "connection_url": "mysql://{{username}}:{{password}}@" + source.Addr() + "/"},
		form:   form,
		root:   rootOf(root),
		users: func(t *testing.T) (names []string) {
			t.Helper()
			for _, row := range source.Query(t, "SELECT User FROM mysql.user WHERE User LIKE 'v\\_"+role+"\\_%'") {
				names = append(names, row[0])
			}
			return names
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			session, err := source.Login(t.Context(), data["username"], data["password"], "app")
			if err != nil {
				return err
			}
			defer session.Close()
			_, err = session.ExecContext(t.Context(), "SELECT COUNT(*) FROM items")
			return err
		},
	}
	if expiry {
		schema := "events_" + role
		source.Exec(t, "CREATE DATABASE "+schema, "GRANT EVENT ON "+schema+".* TO '"+root+"'@'%'")
		s.config["expiry_events"] = schema
		s.ends = func(t *testing.T) map[string]time.Time {
			t.Helper()
			ends := map[string]time.Time{}
			for _, row := range source.Query(t, "SELECT EVENT_NAME, EXECUTE_AT FROM information_schema.EVENTS WHERE EVENT_SCHEMA = '"+schema+"'") {
				at, err := time.Parse(time.DateTime, row[1])
				if err != nil {
					t.Fatalf("an event is at %s", row[1])
				}
				ends[row[0]] = at
			}
			return ends
		}
	}
	return s
}

// edited are other rights than those of the role before.
func edited() client.Document {
	return client.Document{"privileges": []string{"SELECT, INSERT ON app.*"}}
}

// regrouping dies when the group that holds other rights has some of them, and is not known to be whole.
func regrouping(t *testing.T, w *world, arm string, _ api.Credential) {
	t.Helper()
	w.die(t, w.first(), arm, func(ctx context.Context, c *client.Client) error {
		_, err := c.UpdateRole(ctx, "db", w.role, edited())
		return err
	})
}

// regrouped wants no lease that nobody asked for, and that the role can be edited: its group is gone on with.
func regrouped(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	var err error
	eventually(t, func() string { return fmt.Sprintf("the role is edited: %v", err) }, func() bool {
		_, err = w.other().Admin(t).UpdateRole(t.Context(), "db", w.role, edited())
		return err == nil
	})
	nothing(t, w, leases, subject)
	return "the role is edited again"
}
