package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

// The engines of a rig, which differ in the rounds of their verifiers, and the
// roles of each.
const (
	usual = "usual" // 4,096 rounds, as RFC 7677 asks
	fast  = "fast"  // 1 round: nothing but what issuing itself costs

	member = "member" // a member of the role's group
	filler = "filler" // the same, for leases that only have to be there
	grants = "grants" // statements, with rights on every table given directly
)

// rig is a source with a server over it and the direct client beside it.
type rig struct {
	*source
	home    *home
	vault   *vault
	callers []*caller
	direct  *direct
}

// most is how many callers any section has.
const most = 32

func (b *bench) newRig(ctx context.Context, major int, way, kind string) (r *rig, err error) {
	r = &rig{}
	if r.source, err = newSource(ctx, major, way); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.home, err = b.newHome(ctx, kind); err != nil {
		return nil, err
	}
	if r.vault, err = startVault(ctx, b.binary, r.home); err != nil {
		return nil, err
	}
	if err := r.configure(ctx); err != nil {
		return nil, err
	}
	for range most {
		r.callers = append(r.callers, r.vault.caller())
	}
	group, err := r.group(ctx, member)
	if err != nil {
		return nil, err
	}
	r.direct, err = newDirect(ctx, r.source, group, most)
	return r, err
}

func (r *rig) close() error {
	for _, c := range r.callers {
		c.close()
	}
	if r.direct != nil {
		r.direct.close()
	}
	var err error
	if r.vault != nil {
		err = r.vault.close()
	}
	if r.home != nil {
		err = errors.Join(err, r.home.close())
	}
	return errors.Join(err, r.source.close())
}

// title names the source, and the store where it is not the usual one.
func (r *rig) title() string {
	if r.home.kind == shared {
		return r.source.title() + ", shared store"
	}
	return r.source.title()
}

// configure makes root secret, policy, engines and roles. Engines have the
// product's defaults but for the rounds.
func (r *rig) configure(ctx context.Context) error {
	c, err := r.vault.client()
	if err != nil {
		return err
	}
	if err := rootSecret(ctx, c, rootName, r.password); err != nil {
		return err
	}
	for engine, iterations := range map[string]int{usual: 4096, fast: 1} {
		if err := r.engine(ctx, c, engine, rootPath, iterations); err != nil {
			return fmt.Errorf("make engine %s: %w", engine, err)
		}
	}
	return nil
}

// rootPath is where every engine's root credentials lie.
const rootPath = "bench/root"

// rootSecret writes the root credentials and lets engines read them.
func rootSecret(ctx context.Context, c *client.Client, username, password string) error {
	root := map[string]json.RawMessage{"username": json.RawMessage(strconv.Quote(username)), "password": json.RawMessage(strconv.Quote(password))}
	if _, err := c.WriteSecret(ctx, rootPath, api.SecretWrite{Data: root}); err != nil {
		return fmt.Errorf("write the root secret: %w", err)
	}
	p, err := c.CreatePolicy(ctx, api.PolicyRequest{Name: "engines", Rules: []api.PolicyRule{{PathPattern: rootPath, Permissions: []api.Permission{"read"}}}})
	if err != nil {
		return fmt.Errorf("make the policy: %w", err)
	}
	if _, err := c.BindPolicy(ctx, p.ID, api.BindingRequest{IdentityType: "system", IdentityID: "system:dynamic-engines"}); err != nil {
		return fmt.Errorf("bind the policy: %w", err)
	}
	return nil
}

func (r *rig) engine(ctx context.Context, c *client.Client, name, root string, iterations int) error {
	config, err := json.Marshal(map[string]any{
		"plugin":                "postgresql",
		"connection_url":        "postgresql://{{username}}:{{password}}@" + r.server.Addr() + "/" + database + "?sslmode=disable",
		"root_credentials_path": root,
		"scram_iterations":      iterations,
	})
	if err != nil {
		return err
	}
	if _, err := c.CreateEngine(ctx, api.EngineRequest{Name: name, Type: "database", Config: config}); err != nil {
		return err
	}
	roles := []client.Document{
		{"name": member, "privileges": []string{"USAGE ON SCHEMA public", "SELECT ON ALL TABLES IN SCHEMA public"}},
		{"name": filler, "privileges": []string{"USAGE ON SCHEMA public", "SELECT ON ALL TABLES IN SCHEMA public"}},
	}
	if r.server.Major < 16 {
		roles = append(roles, client.Document{"name": grants, "creation_statements": []string{
			`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
			`GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"`}})
	}
	for _, role := range roles {
		if _, err := c.CreateRole(ctx, name, role); err != nil {
			return fmt.Errorf("role %s: %w", role["name"], err)
		}
	}
	return nil
}

// issue asks for credentials.
func (r *rig) issue(engine, role string) task {
	return credentials(r.callers, engine, role)
}

// one makes a lease and answers its id.
func (r *rig) one(ctx context.Context, caller int, engine, role string) (string, error) {
	return r.callers[caller].issue(ctx, engine, role)
}

// end revokes one lease.
func (r *rig) end(ctx context.Context, caller int, id string) error {
	_, err := r.callers[caller].do(ctx, "DELETE", "/v1/dynamic/leases/"+id, "", 204)
	return err
}

// stock makes n leases and answers their ids.
func (r *rig) stock(ctx context.Context, engine, role string, n int) ([]string, error) {
	made := make(chan string, n)
	_, err := times(ctx, 8, n, func(ctx context.Context, caller int) error {
		id, err := r.one(ctx, caller, engine, role)
		made <- id
		return err
	})
	close(made)
	var ids []string
	for id := range made {
		ids = append(ids, id)
	}
	return ids, err
}

// revoke ends a stock of leases one by one.
func (r *rig) revoke(callers, n int) side {
	return func(ctx context.Context) (sample, error) {
		ids, err := r.stock(ctx, fast, member, n)
		if err != nil {
			return sample{}, err
		}
		next := handOut(ids)
		return times(ctx, callers, n, func(ctx context.Context, caller int) error { return r.end(ctx, caller, next()) })
	}
}

// revokeAll ends a stock of leases by one call; each lease counts.
func (r *rig) revokeAll(role string, n int) side {
	return func(ctx context.Context) (sample, error) {
		if _, err := r.stock(ctx, fast, role, n); err != nil {
			return sample{}, err
		}
		begun := time.Now()
		err := r.clear(ctx, fast, role)
		return sample{elapsed: time.Since(begun), latencies: make([]time.Duration, n)}, err
	}
}

// clear revokes every lease of a role and waits until all are dead.
func (r *rig) clear(ctx context.Context, engine, role string) error {
	return r.callers[0].clear(ctx, engine, role)
}

// turns are the two sides of issuing: each for a while, and then what it made is
// taken away, so that every turn finds the same.
func (r *rig) turns(callers int, d time.Duration, engine string, iterations int) (direct, ours side) {
	direct = func(ctx context.Context) (sample, error) {
		s, err := during(ctx, callers, d, r.direct.issue(iterations))
		return s, errors.Join(err, r.sweep(ctx))
	}
	return direct, r.vault.issuing(r.callers[:callers], d, engine, member)
}
