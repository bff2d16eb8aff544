package failpoints_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/mysqltest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrixMySQL kills the server at every point of which what the source has no
// transactions for is a part, and compares accounts, leases and the trail when it has
// gone on: a source that makes accounts step by step must leave no more than one that
// does not.
func TestCrashMatrixMySQL(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			source := mysqltest.Start(t, kind)
			source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.items (id INT)")
			for form, document := range map[string]client.Document{
				"privileges": {"privileges": []string{"SELECT ON app.*"}},
				"statements": {"creation_statements": []string{"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "GRANT SELECT ON app.* TO '{{name}}'@'%'"}},
			} {
				for _, s := range mysqlScenarios(form) {
					t.Run(form+"/"+string(s.point), func(t *testing.T) {
						t.Parallel()
						playMySQL(t, source, s, document)
					})
				}
			}
		})
	}
}

// mysqlScenarios are the ways to reach the points.
func mysqlScenarios(form string) (all []scenario) {
	for _, p := range []failpoint.Point{failpoint.F2, failpoint.F3, failpoint.F4, failpoint.F6} {
		if p != failpoint.F4 || form == "statements" {
			all = append(all, scenario{point: p, reach: issuing})
		}
	}
	for _, p := range []failpoint.Point{failpoint.R1, failpoint.Disabled, failpoint.R2, failpoint.R3} {
		all = append(all, scenario{point: p, reach: revoking})
	}
	if form == "statements" {
		return all
	}
	for _, p := range []failpoint.Point{failpoint.RootKept, failpoint.RootSent, failpoint.RootSet, failpoint.RootProved, failpoint.RootPromoted} {
		all = append(all, scenario{point: p, reach: rotating})
	}
	return all
}

func playMySQL(t *testing.T, source *mysqltest.Server, s scenario, form client.Document) {
	t.Helper()
	node := vaulttest.StartProgram(t, vaulttest.Failing(t))
	w := &world{nodes: []*vaulttest.Server{node}, role: "r" + strings.ToLower(rand.Text()[:8])}
	configureMySQL(t, w, source, form)
	subject, err := w.issue(t.Context(), node.Admin(t))
	if err != nil {
		t.Fatalf("have a credential: %v", err)
	}
	s.reach(t, w, string(s.point)+" kill", subject)
	node.Run(t)

	var after api.Credential
	eventually(t, func() string { return fmt.Sprintf("a credential is made: %v; output: %s", err, tail(node.Output())) }, func() bool {
		after, err = w.issue(t.Context(), node.Admin(t))
		return err == nil
	})
	session, err := source.Login(t.Context(), after.Data["username"], after.Data["password"], "app")
	if err != nil {
		t.Fatalf("a credential from after the kill does not log in: %v", err)
	}
	session.Close()
	eventually(t, func() string { return "nothing is open; output: " + tail(node.Output()) }, func() bool {
		for _, l := range w.leases(t, node) {
			if l.Status == api.LeaseIssuing || l.Status == api.LeaseRevoking {
				return false
			}
		}
		return true
	})
	leases := w.leases(t, node)
	accounts := mysqlAccounts(t, w, source)
	for _, l := range leases {
		if alive := l.Status == api.LeaseActive; alive != accounts[l.Username] {
			t.Errorf("lease %s is %s, and its account is there: %t", l.LeaseID, l.Status, accounts[l.Username])
		}
		delete(accounts, l.Username)
	}
	for name := range accounts {
		t.Errorf("account %s has no lease", name)
	}
	w.compareTrail(t, node, leases)
	result, err := node.Admin(t).RevokePrefix(t.Context(), "db/"+w.role, patience/2)
	if left := mysqlAccounts(t, w, source); err != nil || result.Pending != 0 || len(left) != 0 {
		t.Errorf("revoke what is left: %+v, %v; there are %v", result, err, left)
	}
}

// mysqlAccounts are those of the world's role.
func mysqlAccounts(t *testing.T, w *world, source *mysqltest.Server) map[string]bool {
	t.Helper()
	accounts := map[string]bool{}
	for _, row := range source.Query(t, "SELECT User FROM mysql.user WHERE User LIKE 'v\\_"+w.role+"\\_%'") {
		accounts[row[0]] = true
	}
	return accounts
}

// configureMySQL makes the root of the guide, under a name of its own, and an engine
// and a role.
func configureMySQL(t *testing.T, w *world, source *mysqltest.Server, form client.Document) {
	t.Helper()
	const password = "a-long-one"
	root := "root_" + w.role
	guide, err := os.ReadFile("../../docs/engines/mysql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(guide), "```"+source.Kind+"\n")
	block, _, _ = strings.Cut(block, "```")
	for _, statement := range strings.Split(strings.TrimSpace(block), ";\n") {
		source.Exec(t, strings.TrimSuffix(strings.ReplaceAll(statement, "'scaivault'", "'"+root+"'"), ";"))
	}
	admin := w.first().Admin(t)
	quoted := func(text string) json.RawMessage { return json.RawMessage(fmt.Sprintf("%q", text)) }
	_, err = admin.WriteSecret(t.Context(), rootPath, api.SecretWrite{Data: map[string]json.RawMessage{"username": quoted(root), "password": quoted(password)}})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := admin.CreatePolicy(t.Context(), api.PolicyRequest{Name: "engines", Rules: []api.PolicyRule{
		{PathPattern: rootPath, Permissions: []api.Permission{"read", "rotate"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.BindPolicy(t.Context(), policy.ID, api.BindingRequest{IdentityType: "system", IdentityID: "dynamic:db"}); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"plugin": "mysql", "root_credentials_path": rootPath, "operation_timeout": operationTimeout,
		"connection_url": "mysql://{{username}}:{{password}}@" + source.Addr() + "/"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateEngine(t.Context(), api.EngineRequest{Name: "db", Type: "database", Config: config}); err != nil {
		t.Fatal(err)
	}
	role := client.Document{"name": w.role, "default_ttl": life.String(), "max_ttl": longest.String()}
	for name, value := range form {
		role[name] = value
	}
	if _, err := admin.CreateRole(t.Context(), "db", role); err != nil {
		t.Fatal(err)
	}
}
