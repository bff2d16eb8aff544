// Package upgrade_test runs the previous release and this one on one store.
package upgrade_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// noHistory is the exit status of the script that says so.
const noHistory = 3

// previous is the program as it was before the newest migration, "" where the
// history does not reach back to it: the script has declared that exception.
func previous(t *testing.T) string {
	t.Helper()
	script := exec.CommandContext(t.Context(), "../../scripts/build-previous.sh")
	var said strings.Builder
	script.Stderr = &said
	out, err := script.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == noHistory {
		t.Log(said.String())
		return ""
	}
	if err != nil {
		t.Fatalf("build the previous release: %v: %s", err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// A node of this release joins one of the previous release on its store and
// migrates it under load. Both go on serving, each does what the other began,
// and the former may be started again unless the schema forbids it.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	program := previous(t)
	if program == "" {
		return
	}
	database := pgtest.Shared(t, 17)
	store := database.SuperURL(database.CreateDB(t))
	shared := vaulttest.Node{Program: program, Database: store, KeyFile: filepath.Join(t.TempDir(), "seal.key")}
	old := vaulttest.StartNode(t, shared)
	shared.Token, shared.Program = old.Token(), vaulttest.Program(t)
	source := configure(t, old, database)

	before := employ(t, old)
	before.await(t, 10)
	present := vaulttest.StartNode(t, shared)
	both := employ(t, old, present)
	before.await(t, before.lives()+10)
	both.await(t, 30)
	before.rest()
	both.rest()

	// What is killed in the midst of an upgrade is started again, by the release
	// that it is of.
	old.Kill(t)
	if err := old.TryRun(); err == nil {
		again := employ(t, old, present)
		again.await(t, 10)
		again.rest()
	} else if !strings.Contains(old.Output(), "newer release") {
		t.Errorf("start the previous release again: %v; its output: %s", err, old.Output())
	}
	after := employ(t, present)
	after.await(t, 10)
	after.rest()

	admin := present.Admin(t)
	if result, err := admin.RevokePrefix(t.Context(), "db", time.Minute); err != nil || result.Pending != 0 {
		t.Errorf("revoke everything: %+v, %v", result, err)
	}
	var left int
	if err := database.Superuser(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_auth_members m
		JOIN pg_roles r ON r.oid = m.member WHERE r.rolname LIKE 'v\_upgraded\_%' AND r.rolcanlogin`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d accounts in %s are left, %v", left, source, err)
	}
	if chains, err := admin.VerifyAudit(t.Context()); err != nil || !chains.OK || len(chains.Chains) != 2 {
		t.Errorf("verify the audit chains: %+v, %v", chains, err)
	}
}

// configure gives the store an engine by a node of the previous release.
func configure(t *testing.T, node *vaulttest.Server, server *pgtest.Server) (source string) {
	t.Helper()
	ctx, admin := t.Context(), node.Admin(t)
	source = server.CreateDB(t)
	root, password := server.NewRoot(t, pgtest.Plain)
	setup, err := postgresql.SetupSQL(postgresql.Setup{Root: root, Database: source, Owner: pgtest.Superuser, Way: postgresql.SetupDefiner})
	must(t, err)
	server.ExecIn(t, source, setup)
	quoted := func(text string) json.RawMessage { return json.RawMessage(fmt.Sprintf("%q", text)) }
	_, err = admin.WriteSecret(ctx, "infra/root", api.SecretWrite{Data: map[string]json.RawMessage{"username": quoted(root), "password": quoted(password)}})
	must(t, err)
	policy, err := admin.CreatePolicy(ctx, api.PolicyRequest{Name: "roots", Rules: []api.PolicyRule{{PathPattern: "infra/root", Permissions: []api.Permission{"read"}}}})
	must(t, err)
	_, err = admin.BindPolicy(ctx, policy.ID, api.BindingRequest{IdentityType: "system", IdentityID: "system:dynamic-engines"})
	must(t, err)
	config := fmt.Sprintf(`{"plugin": "postgresql", "root_credentials_path": "infra/root", "scram_iterations": 1,
		"connection_url": "postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable"}`, server.Addr(), source)
	_, err = admin.CreateEngine(ctx, api.EngineRequest{Name: "db", Type: "database", Config: json.RawMessage(config)})
	must(t, err)
	_, err = admin.CreateRole(ctx, "db", client.Document{"name": "upgraded", "privileges": []string{"USAGE ON SCHEMA public"}})
	must(t, err)
	return source
}

// workers lead credentials through their lives at random nodes.
type workers struct {
	done atomic.Int64
	stop context.CancelFunc
	all  sync.WaitGroup
}

func employ(t *testing.T, nodes ...*vaulttest.Server) *workers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &workers{stop: cancel}
	t.Cleanup(w.rest)
	var clients []*client.Client
	for _, n := range nodes {
		clients = append(clients, n.Admin(t))
	}
	for range 4 {
		w.all.Go(func() {
			for ctx.Err() == nil {
				at := func() *client.Client { return clients[rand.IntN(len(clients))] }
				switch err := life(ctx, at); {
				case err == nil:
					w.done.Add(1)
				case !busy(err) && ctx.Err() == nil:
					t.Errorf("a credential's life: %v", err)
					return
				}
			}
		})
	}
	return w
}

// life issues, renews and revokes a credential, each at some node, and writes a
// secret.
func life(ctx context.Context, at func() *client.Client) error {
	c, err := at().GenerateCredential(ctx, "db", "upgraded", api.CredsRequest{})
	if err != nil {
		return fmt.Errorf("issue: %w", err)
	}
	longer := api.Duration(2 * time.Hour)
	if _, err := at().RenewLease(ctx, c.LeaseID, api.RenewRequest{TTL: &longer}); err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	if _, err := at().WriteSecret(ctx, "app/key", api.SecretWrite{Data: map[string]json.RawMessage{"k": json.RawMessage(`"v"`)}}); err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	if _, err := at().RevokeLease(ctx, c.LeaseID, time.Minute); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

// busy tells of an answer to try again after: a migration may hold a table for
// longer than a request waits.
func busy(err error) bool {
	var refused *client.Error
	return errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable
}

func (w *workers) lives() int64 { return w.done.Load() }

func (w *workers) await(t *testing.T, lives int64) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); w.lives() < lives && !t.Failed(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d credentials in all, want %d", w.lives(), lives)
		}
	}
}

// rest waits for the end of what is under way. Safe to call twice.
func (w *workers) rest() {
	w.stop()
	w.all.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
