package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
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

const (
	functions  = postgresql.SetupDefiner
	createRole = postgresql.SetupCreateRole
	privileges = "privileges"
	statements = "statements"

	// operationTimeout is short, so that cut off issuances are decided soon.
	operationTimeout = "3s"
	life             = 2 * time.Hour
	rotateEvery      = 1500 * time.Millisecond
)

// world is the server under test, its source, and what the callers were told.
type world struct {
	vault  *vaulttest.Server
	source *pgtest.Server
	db     string
	app    *client.Client // of a service account, whose tokens outlive the kills
	keeper *client.Client // of the one that rotates the root
	kills  int

	rotating atomic.Bool

	mu        sync.Mutex
	given     []*credential
	rotations int            // of the root, answered
	other     map[string]int // errors that are no answer of the server's death
}

// credential is what a caller was answered, and what it did with it.
type credential struct {
	lease, username, password string

	revokeAsked, revoked bool // revoked: 204 was answered
}

func newWorld(t *testing.T, major int, way, form string) *world {
	t.Helper()
	w := &world{
		vault: vaulttest.Start(t), other: map[string]int{},
		source: pgtest.Start(t, major, pgtest.WithFsync()),
	}
	w.db = w.source.CreateDB(t)
	w.source.ExecIn(t, w.db, "CREATE TABLE items (id int)")
	root, password := w.source.NewRoot(t, pgtest.Plain)
	sql, err := postgresql.SetupSQL(postgresql.Setup{Root: root, Database: w.db, Owner: pgtest.Superuser, Way: way})
	if err != nil {
		t.Fatal(err)
	}
	w.source.ExecIn(t, w.db, sql)
	if err := w.configure(t, root, password, form); err != nil {
		t.Fatalf("set the server up: %v", err)
	}
	return w
}

func (w *world) configure(t *testing.T, root, password, form string) error {
	t.Helper()
	ctx, admin := t.Context(), w.vault.Admin(t)
	const path = "infra/root"
	quoted := func(text string) json.RawMessage { return json.RawMessage(fmt.Sprintf("%q", text)) }
	if _, err := admin.WriteSecret(ctx, path, api.SecretWrite{Data: map[string]json.RawMessage{"username": quoted(root), "password": quoted(password)}}); err != nil {
		return err
	}
	if err := w.allow(ctx, admin, "system", "dynamic:db", api.PolicyRule{PathPattern: path, Permissions: []api.Permission{"read", "rotate"}}); err != nil {
		return err
	}
	var err error
	if w.app, err = w.account(ctx, t, "app", api.PolicyRule{PathPattern: "dynamic/db/*", Permissions: []api.Permission{"dynamic:generate"}}); err != nil {
		return err
	}
	if w.keeper, err = w.account(ctx, t, "keeper", api.PolicyRule{PathPattern: "dynamic/db", Permissions: []api.Permission{"dynamic:manage"}},
		api.PolicyRule{PathPattern: path, Permissions: []api.Permission{"rotate"}}); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"plugin": "postgresql", "root_credentials_path": path, "operation_timeout": operationTimeout, "connect_timeout": "2s",
		"connection_url":   fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", w.source.Addr(), w.db),
		"scram_iterations": 1, "max_open_connections": 8, // more of the work is ours
	})
	if err != nil {
		return err
	}
	if _, err := admin.CreateEngine(ctx, api.EngineRequest{Name: "db", Type: "database", Config: config}); err != nil {
		return err
	}
	role := client.Document{"name": "reader", "privileges": []string{"SELECT ON ALL TABLES IN SCHEMA public"}}
	if form == statements {
		role = client.Document{"name": "reader", "creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`}}
	}
	_, err = admin.CreateRole(ctx, "db", role)
	return err
}

// account makes a service account with these rules and gives its client.
func (w *world) account(ctx context.Context, t *testing.T, name string, rules ...api.PolicyRule) (*client.Client, error) {
	t.Helper()
	admin := w.vault.Admin(t)
	account, err := admin.CreateServiceAccount(ctx, api.ServiceAccountRequest{Name: name, Scopes: []string{"dynamic:generate", "dynamic:manage"}})
	if err != nil {
		return nil, err
	}
	if err := w.allow(ctx, admin, "service_account", account.IdentityID, rules...); err != nil {
		return nil, err
	}
	return w.vault.Client(t, client.Config{
		ClientID: account.ClientID, ClientSecret: account.ClientSecret,
		HTTPClient: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}},
	}), nil
}

func (w *world) allow(ctx context.Context, admin *client.Client, kind, identity string, rules ...api.PolicyRule) error {
	_, name, _ := strings.Cut(identity, ":")
	policy, err := admin.CreatePolicy(ctx, api.PolicyRequest{Name: name, Rules: rules})
	if err != nil {
		return err
	}
	_, err = admin.BindPolicy(ctx, policy.ID, api.BindingRequest{IdentityType: kind, IdentityID: identity})
	return err
}

// employ sets the callers to work until stop is called.
func (w *world) employ(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range callers {
		all.Go(func() { w.repeat(ctx, 5*time.Millisecond, w.once) })
	}
	all.Go(func() { w.repeat(ctx, 5*time.Millisecond, w.rotate) })
	return func() {
		cancel()
		all.Wait()
	}
}

// repeat does something again and again; after a failure, mostly since the
// server is down, it pauses.
func (w *world) repeat(ctx context.Context, pause time.Duration, do func(context.Context) error) {
	for ctx.Err() == nil {
		err := do(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		var refused *client.Error
		if errors.As(err, &refused) {
			w.note(refused)
		}
		time.Sleep(pause)
	}
}

// rotate changes the root's password at the source (law L9), after a pause.
func (w *world) rotate(ctx context.Context) error {
	select {
	case <-time.After(rotateEvery):
	case <-ctx.Done():
		return nil
	}
	w.rotating.Store(true)
	_, err := w.keeper.RotateRoot(ctx, "db")
	w.rotating.Store(false)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.rotations++
	w.mu.Unlock()
	return nil
}

// once issues a credential; now and then it renews or revokes it, or gives up
// before it is answered.
func (w *world) once(ctx context.Context) error {
	ttl := api.Duration(life)
	patience, cancel := context.WithTimeout(ctx, 30*time.Second)
	if rand.IntN(50) == 0 {
		cancel()
		patience, cancel = context.WithTimeout(ctx, rand.N(10*time.Millisecond))
	}
	defer cancel()
	answer, err := w.app.GenerateCredential(patience, "db", "reader", api.CredsRequest{TTL: &ttl})
	if err != nil {
		if patience.Err() != nil {
			return nil
		}
		return err
	}
	c := &credential{lease: answer.LeaseID, username: answer.Data["username"], password: answer.Data["password"]}
	w.mu.Lock()
	w.given = append(w.given, c)
	w.mu.Unlock()

	switch rand.IntN(10) {
	case 0, 1:
		return w.revoke(ctx, c)
	case 2:
		longer := api.Duration(life + rand.N(time.Hour).Truncate(time.Second))
		_, err := w.app.RenewLease(ctx, c.lease, api.RenewRequest{TTL: &longer})
		return err
	}
	return nil
}

func (w *world) revoke(ctx context.Context, c *credential) error {
	w.mu.Lock()
	c.revokeAsked = true
	w.mu.Unlock()
	pending, err := w.app.RevokeLease(ctx, c.lease, 0)
	if err != nil || pending != nil {
		return err
	}
	w.mu.Lock()
	c.revoked = true
	w.mu.Unlock()
	return nil
}

// note counts a refusal; 503 is how a server that is being killed may end.
func (w *world) note(refused *client.Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.other[fmt.Sprintf("%d %s: %s", refused.Status, refused.Code, refused.Message)]++
}

func (w *world) answered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.given)
}
