// Package disk_test holds the embedded store against disks that fail: power cuts, flushes that
// fail, a full disk, flipped bits, older copies. It runs the real store, door and lease manager on
// real files; only the source is made up.
//
// `make bad-disks` runs the full matrix and prints it; without SCAIVAULT_TEST_FULL=1 a short form
// of each fault runs.
package disk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/clock"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/sqlite/vfs"
	"github.com/scaivault/scaivault/internal/witness"
)

const (
	tenant   = store.DefaultTenant
	rootPath = "infra/root"
	holder   = "system:test" // who asks for credentials
)

// full tells whether the whole matrix is asked for.
func full() bool { return os.Getenv("SCAIVAULT_TEST_FULL") == "1" }

// often is how many times something is tried, short or in full.
func often(short, whole int) int {
	if full() {
		return whole
	}
	return short
}

// vault is what runs on one data folder: all but HTTP.
type vault struct {
	store   *sqlite.Store
	witness *witness.Service
	sources *source.Service
	leases  *lease.Manager
	caller  *access.Caller
}

var chain = audit.Chain([]byte("test"))

// secrets has the one root secret.
type secrets struct{}

func (secrets) ReadAs(context.Context, *access.Caller, string) (map[string]statement.Secret, int, error) {
	return map[string]statement.Secret{"password": "root"}, 1, nil
}

func (s secrets) VersionAs(ctx context.Context, c *access.Caller, path string, _ int) (map[string]statement.Secret, int, error) {
	return s.ReadAs(ctx, c, path)
}

func (secrets) AddVersion(store.Tx, string, string, map[string]statement.Secret, string) (int, error) {
	return 2, nil
}

func (secrets) Create(store.Tx, string, string, map[string]statement.Secret, string) (int, error) {
	return 1, nil
}

func (secrets) Announce(string, string, int) {}

// open starts a vault on a folder. The witness lies outside it.
func open(dir, witnessFile string, disk vfs.Layer, at *leasetest.Source) (*vault, error) {
	quiet := slog.New(slog.DiscardHandler)
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: dir, Chain: chain, Disk: disk, Logger: quiet})
	if err != nil {
		return nil, err
	}
	guard := clock.New(clock.Config{Store: s, Logger: quiet})
	if err := guard.Open(context.Background()); err != nil {
		_ = s.Close()
		return nil, err
	}
	door := access.New(access.Config{Store: guard, Limits: access.Limits{Off: true}})
	v := &vault{store: s, caller: access.System(tenant, holder)}
	v.caller.Origin = access.Origin{RequestID: ident.New(ident.Request), SourceIP: netip.MustParseAddr("192.0.2.1"), Start: time.Now()}
	v.sources = source.New(source.Config{Store: guard, Door: door, Secrets: secrets{}, Logger: quiet,
		Types:       []engine.Type{&leasetest.Type{Hosts: map[string]*leasetest.Source{"one": at}}},
		EndBindings: func(store.Tx, string, string) error { return nil },
		Namer:       statement.NewNamer(s.Installation(), []byte("key"), nil)})
	v.leases = lease.New(lease.Config{Store: guard, Clock: guard, Door: door, Sources: v.sources, Logger: quiet})
	v.sources.SetRevoker(v.leases)
	guard.Join(door, v.leases.Kick)
	v.witness = witness.New(witness.Config{Store: guard, Door: door, File: witnessFile, Resumed: v.leases.Kick, Logger: quiet})
	if err := v.witness.Start(context.Background()); err != nil {
		v.close()
		return nil, err
	}
	v.leases.Start()
	return v, nil
}

// close ends the vault in good order.
func (v *vault) close() {
	v.leases.Stop()
	v.sources.Close()
	_ = v.store.Close() // whose disk may have failed
}

// issue gets a credential: when there is no error, an answer 201 has left.
func (v *vault) issue() (*api.Credential, error) {
	return v.leases.Issue(context.Background(), v.caller, "one", "app", api.CredsRequest{}, nil)
}

// template makes a folder with an engine, a role and a few leases in it, closed in good order, and
// its witness.
func template(t *testing.T) (dir, witnessFile string, at *leasetest.Source) {
	t.Helper()
	dir, witnessFile, at = filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "witness"), leasetest.NewSource("server-one")
	v, err := open(dir, witnessFile, nil, at)
	must(t, err)
	must(t, v.store.Write(t.Context(), func(tx store.Tx) error {
		rules, _ := json.Marshal(map[string]any{"is_active": true, "scope": "tenant",
			"rules": []policy.Rule{{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}}}})
		for _, o := range []store.Object{
			{Kind: store.KindPolicy, ID: "pol", Key: "all", Doc: rules},
			{Kind: store.KindBinding, ID: "bind", Key: holder + " pol", Doc: []byte(`{"policy": "pol", "identity": "` + holder + `"}`)},
		} {
			o.Tenant = tenant
			if err := tx.PutObject(&o, store.AnyVersion); err != nil {
				return err
			}
		}
		return tx.PutSecret(&store.Secret{Tenant: tenant, Path: rootPath, Type: "json", Version: 1, Versions: 1, Doc: []byte("{}")})
	}))
	config, _ := json.Marshal(map[string]any{"host": "one", "root_credentials_path": rootPath})
	_, err = v.sources.CreateEngine(t.Context(), v.caller, &api.EngineRequest{Name: "one", Type: "fake", Config: config})
	must(t, err)
	_, err = v.sources.CreateRole(t.Context(), v.caller, "one", []byte(`{"name": "app", "default_ttl": "1h", "grants": "all"}`))
	must(t, err)
	for range 5 {
		_, err := v.issue()
		must(t, err)
	}
	v.close()
	return dir, witnessFile, at
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// examine opens a folder that a fault has left, and tells what is wrong: what was answered and is
// not there, what is there by half, a chain that is broken, an alarm without a reason.
func examine(dir, witnessFile string, at *leasetest.Source, answered []string) error {
	v, err := open(dir, witnessFile, nil, at)
	if err != nil {
		return fmt.Errorf("it does not open: %w", err)
	}
	defer v.close()
	if q, err := v.witness.State(); err != nil || q != nil {
		return fmt.Errorf("a quarantine without a reason: %+v, %w", q, err)
	}
	if err := v.store.Ping(context.Background()); err != nil {
		return fmt.Errorf("it is not well: %w", err)
	}
	// All that it holds is read, so that each page is held against its checksum.
	if err := v.store.Export(context.Background(), func(*store.Record) error { return nil }); err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	return v.store.Read(context.Background(), func(r store.Reader) error { return consistent(r, v.store.Node(), answered) })
}

// consistent tells whether the chain is whole, and every lease has the entry that it was asked for,
// every such entry its lease, and every answered one both.
func consistent(r store.Reader, node string, answered []string) error {
	leases, err := r.Leases(store.LeaseFilter{}, "", 0)
	if err != nil {
		return err
	}
	stored := map[string]bool{}
	for _, l := range leases {
		stored[l.ID] = true
	}
	rows, err := r.AuditChain(node, 1, 0)
	if err != nil {
		return err
	}
	requested := map[string]bool{}
	var mac []byte
	for i, row := range rows {
		mac = chain(mac, store.AuditMessage(row))
		if row.Seq != int64(i)+1 || string(mac) != string(row.MAC) {
			return fmt.Errorf("entry %d does not verify", row.Seq)
		}
		if row.Entry.ExtraData["outcome"] == "requested" && row.Entry.Action == "dynamic_generate" {
			requested[row.Entry.ExtraData["lease_id"].(string)] = true
		}
	}
	for id := range stored {
		if !requested[id] {
			return fmt.Errorf("lease %s has no entry that it was asked for", id)
		}
	}
	for id := range requested {
		if !stored[id] {
			return fmt.Errorf("lease %s was asked for, and is not there", id)
		}
	}
	for _, id := range answered {
		if !stored[id] || !requested[id] {
			return fmt.Errorf("lease %s was answered: it is there %t, its entry %t", id, stored[id], requested[id])
		}
	}
	return nil
}
