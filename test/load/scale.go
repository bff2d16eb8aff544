package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/test/load/fill"
)

// idle is how long a server does nothing before its memory counts.
const idle = 3 * time.Second

// dead is the share of a filled store's leases that is dead.
const dead = 0.3

// The engines of a filled store: their source does nothing, at once.
const (
	first  = "idle-a"
	second = "idle-b"
	rare   = "idle-rare" // has three leases
	works  = "idle-work" // for what is measured: its leases come and go
)

// scale measures what the number of leases costs: starts, memory, lists, single operations and
// revocation by prefix, each beside a server with hardly any.
func (b *bench) scale(kind string) func(ctx context.Context) error {
	return func(ctx context.Context) (err error) {
		var crowds []*crowd
		defer func() {
			for _, c := range crowds {
				err = errors.Join(err, c.close())
			}
		}()
		for _, n := range b.sizes() {
			c, err := b.newCrowd(ctx, kind, n)
			if err != nil {
				return fmt.Errorf("%s with %d leases: %w", kind, n, err)
			}
			crowds = append(crowds, c)
			if err := b.starts(ctx, c); err != nil {
				return err
			}
		}
		young, old := crowds[0], crowds[len(crowds)-1]
		for _, c := range []*crowd{young, old} {
			if err := c.start(ctx, b); err != nil {
				return err
			}
		}
		for _, measure := range []func(context.Context, *crowd, *crowd) error{b.operations, b.lists, b.prefixes} {
			if err := measure(ctx, young, old); err != nil {
				return fmt.Errorf("%w; the server's log: %s", err, old.vault.tail())
			}
		}
		memory, err := old.vault.resident()
		b.report.figure("process", fmt.Sprintf("%s: resident memory after all of that, with %d leases", kind, old.leases),
			fmt.Sprintf("%.0f MiB", memory), "< 150 MiB")
		return err
	}
}

// sizes are how many leases the stores hold; the first and the last are compared.
func (b *bench) sizes() []int {
	switch {
	case b.leases > 0:
		return []int{10, b.leases}
	case b.quick:
		return []int{10, 10_000}
	default:
		return []int{10, 100_000}
	}
}

// crowd is a store with many leases, and a server on it whose sources do nothing.
type crowd struct {
	*home
	leases  int
	vault   *vault // nil while none runs
	callers []*caller
}

func (b *bench) newCrowd(ctx context.Context, kind string, n int) (_ *crowd, err error) {
	c := &crowd{leases: n}
	if c.home, err = b.newHome(ctx, kind); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := c.start(ctx, b); err != nil {
		return nil, err
	}
	if err := c.configure(ctx); err != nil {
		return nil, err
	}
	if err := c.stop(); err != nil {
		return nil, err
	}
	begun := time.Now()
	for _, engine := range []string{first, second} {
		if err := c.fill(ctx, fill.Plan{Leases: n / 2, Revoked: dead, Engine: engine}); err != nil {
			return nil, err
		}
	}
	if err := c.fill(ctx, fill.Plan{Leases: 3, Engine: rare}); err != nil {
		return nil, err
	}
	b.say("%s: %d leases in %s", kind, n, time.Since(begun).Round(time.Millisecond))
	return c, nil
}

func (c *crowd) start(ctx context.Context, b *bench) (err error) {
	if c.vault, err = startVault(ctx, b.idle, c.home); err != nil {
		return err
	}
	c.callers = nil
	for range most {
		c.callers = append(c.callers, c.vault.caller())
	}
	return nil
}

func (c *crowd) stop() error {
	for _, caller := range c.callers {
		caller.close()
	}
	v := c.vault
	c.vault = nil
	return v.close()
}

func (c *crowd) close() (err error) {
	if c.vault != nil {
		err = c.stop()
	}
	return errors.Join(err, c.home.close())
}

// configure makes the engines, and the roles of each.
func (c *crowd) configure(ctx context.Context) error {
	admin, err := c.vault.client()
	if err != nil {
		return err
	}
	if err := rootSecret(ctx, admin, rootName, "none"); err != nil {
		return err
	}
	for _, engine := range []string{first, second, rare, works} {
		if _, err := admin.CreateEngine(ctx, api.EngineRequest{Name: engine, Type: "idle",
			Config: json.RawMessage(`{"root_credentials_path": "` + rootPath + `"}`)}); err != nil {
			return fmt.Errorf("make engine %s: %w", engine, err)
		}
		for _, role := range []string{member, filler, "report", "migrate"} {
			if _, err := admin.CreateRole(ctx, engine, client.Document{"name": role}); err != nil {
				return fmt.Errorf("make role %s: %w", role, err)
			}
		}
	}
	return nil
}

// starts measures several starts on one store, and the memory of the last.
func (b *bench) starts(ctx context.Context, c *crowd) error {
	b.say("%s: starts with %d leases", c.kind, c.leases)
	var took []float64
	for range 7 {
		if err := c.start(ctx, b); err != nil {
			return err
		}
		took = append(took, float64(c.vault.took.Microseconds())/1000)
		if len(took) < 7 {
			if err := c.stop(); err != nil {
				return err
			}
		}
	}
	select {
	case <-time.After(idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	memory, err := c.vault.resident()
	if err := errors.Join(err, c.stop()); err != nil {
		return err
	}
	slices.Sort(took)
	b.report.figure("process", fmt.Sprintf("%s: start to ready with %d leases", c.kind, c.leases),
		fmt.Sprintf("%.0f ms (%.0f to %.0f)", median(took), took[0], took[len(took)-1]), "")
	b.report.figure("process", fmt.Sprintf("%s: resident memory, idle, with %d leases", c.kind, c.leases), fmt.Sprintf("%.0f MiB", memory), "< 150 MiB")
	return nil
}

// operations compares single operations at a source that does nothing: what the store costs.
func (b *bench) operations(ctx context.Context, young, old *crowd) error {
	for _, op := range []struct {
		name string
		side func(c *crowd, callers int) side
	}{{"credentials/s", b.issues}, {"renewals/s", b.renewals}, {"revocations/s", b.revocations}} {
		for _, callers := range []int{1, 8} {
			what := fmt.Sprintf("%s, %d callers, source that does nothing", op.name, callers)
			if !b.rows.MatchString(what) {
				continue
			}
			b.say("%s: %s", young.kind, what)
			c, err := warm(ctx, b.rounds(), op.side(young, callers), op.side(old, callers))
			if err != nil {
				return err
			}
			b.report.scale(what, old, c, rate, "%.0f", 0.9, atLeast)
			b.report.scale("p99 in ms of the row above", old, c, p99, "%.1f", 0, atMost)
		}
	}
	return nil
}

// issues makes credentials for a while, and takes them away afterwards.
func (b *bench) issues(c *crowd, callers int) side {
	return func(ctx context.Context) (sample, error) {
		made := make([][]string, callers)
		s, err := during(ctx, callers, b.turn(), func(ctx context.Context, caller int) error {
			id, err := c.one(ctx, caller)
			made[caller] = append(made[caller], id)
			return err
		})
		return s, errors.Join(err, c.revokeAll(ctx, slices.Concat(made...)))
	}
}

func (b *bench) renewals(c *crowd, callers int) side {
	return func(ctx context.Context) (sample, error) {
		ids, err := c.stock(ctx, callers)
		if err != nil {
			return sample{}, err
		}
		s, err := during(ctx, callers, b.turn(), func(ctx context.Context, caller int) error {
			_, err := c.callers[caller].do(ctx, "POST", "/v1/dynamic/leases/"+ids[caller]+"/renew", "{}", 200)
			return err
		})
		return s, errors.Join(err, c.revokeAll(ctx, ids))
	}
}

func (b *bench) revocations(c *crowd, callers int) side {
	return func(ctx context.Context) (sample, error) {
		ids, err := c.stock(ctx, 100*callers)
		if err != nil {
			return sample{}, err
		}
		next := handOut(ids)
		return times(ctx, callers, len(ids), func(ctx context.Context, caller int) error { return c.end(ctx, caller, next()) })
	}
}

// one makes a lease and answers its id.
func (c *crowd) one(ctx context.Context, caller int) (string, error) {
	return c.callers[caller].issue(ctx, works, member)
}

func (c *crowd) end(ctx context.Context, caller int, id string) error {
	_, err := c.callers[caller].do(ctx, "DELETE", "/v1/dynamic/leases/"+id, "", 204)
	return err
}

func (c *crowd) stock(ctx context.Context, n int) ([]string, error) {
	made := make(chan string, n)
	_, err := times(ctx, 8, n, func(ctx context.Context, caller int) error {
		id, err := c.one(ctx, caller)
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

func (c *crowd) revokeAll(ctx context.Context, ids []string) error {
	next := handOut(ids)
	_, err := times(ctx, 8, len(ids), func(ctx context.Context, caller int) error { return c.end(ctx, caller, next()) })
	return err
}

// lists compares pages of the list of leases, each chosen otherwise.
func (b *bench) lists(ctx context.Context, young, old *crowd) error {
	for _, query := range []struct {
		name   string
		params func(deep, username string) url.Values
	}{
		{"first page", func(string, string) url.Values { return url.Values{} }},
		{"page in the middle, by cursor", func(deep, _ string) url.Values { return url.Values{"cursor": {deep}} }},
		{"of an identity", func(string, string) url.Values { return url.Values{"identity_id": {"sa:fill-0500"}} }},
		{"of an engine", func(string, string) url.Values { return url.Values{"engine": {second}} }},
		{"of an engine that has three", func(string, string) url.Values { return url.Values{"engine": {rare}} }},
		{"of an engine and role, active", func(string, string) url.Values {
			return url.Values{"engine": {second}, "role": {"report"}, "status": {"active"}}
		}},
		{"by user name", func(_, username string) url.Values { return url.Values{"username": {username}} }},
		{"active", func(string, string) url.Values { return url.Values{"status": {"active"}} }},
		{"revoking (there is none)", func(string, string) url.Values { return url.Values{"status": {"revoking"}} }},
		{"revoked", func(string, string) url.Values { return url.Values{"status": {"revoked"}} }},
	} {
		what := "list of 100: " + query.name
		if !b.rows.MatchString(what) {
			continue
		}
		b.say("%s: %s", young.kind, what)
		side := func(c *crowd) (side, error) {
			deep, username, err := c.middle(ctx)
			path := "/v1/dynamic/leases?" + query.params(deep, username).Encode()
			return func(ctx context.Context) (sample, error) {
				return times(ctx, 1, 20, func(ctx context.Context, _ int) error {
					_, err := c.callers[0].do(ctx, "GET", path, "", 200)
					return err
				})
			}, err
		}
		ofYoung, err := side(young)
		if err != nil {
			return err
		}
		ofOld, err := side(old)
		if err != nil {
			return err
		}
		c, err := warm(ctx, 3, ofYoung, ofOld)
		if err != nil {
			return err
		}
		b.report.scale(what+", ms", old, c, p50, "%.2f", 0, atMost)
	}
	return nil
}

// middle is the cursor of about the middle of all leases, and the user name of one there: ids sort
// by time, and the first engine's leases were made before the second's.
func (c *crowd) middle(ctx context.Context) (cursor, username string, err error) {
	text, err := c.callers[0].do(ctx, "GET", "/v1/dynamic/leases?limit=1&engine="+first, "", 200)
	if err != nil {
		return "", "", err
	}
	var list api.LeaseList
	if err := json.Unmarshal(text, &list); err != nil {
		return "", "", err
	}
	if len(list.Leases) == 0 {
		return "", "", errors.New("the filled store lists no leases")
	}
	newest := list.Leases[0]
	return *page.Next("leases", newest.LeaseID).Cursor, newest.Username, nil
}

// prefixes measures revocation by prefix in the midst of many: of roles whose leases are the only
// ones of theirs to die.
func (b *bench) prefixes(ctx context.Context, _, old *crowd) error {
	for _, n := range []int{2000, 10_000} {
		what := fmt.Sprintf("revoke-prefix of %d among %d, source that does nothing", n, old.leases)
		if !b.rows.MatchString(what) || b.quick && b.leases == 0 && n > 2000 {
			continue
		}
		if err := old.stop(); err != nil {
			return err
		}
		if err := old.fill(ctx, fill.Plan{Leases: n, Engine: works, Role: filler}); err != nil {
			return err
		}
		if err := old.start(ctx, b); err != nil {
			return err
		}
		b.say("%s: %s", old.kind, what)
		marked, all, err := old.revokePrefix(ctx, works+"/"+filler)
		if err != nil {
			return err
		}
		b.report.figure("process", old.kind+": "+what+": fenced and marked after", fmt.Sprintf("%.2f s", marked.Seconds()), "")
		b.report.figure("process", old.kind+": "+what+": all dead after", fmt.Sprintf("%.2f s, %.0f/s", all.Seconds(), float64(n)/all.Seconds()), "")
	}
	return nil
}

// revokePrefix revokes a role's leases; marked is until nothing of it can be handed out or renewed.
func (c *crowd) revokePrefix(ctx context.Context, prefix string) (marked, all time.Duration, err error) {
	begun := time.Now()
	body := `{"prefix":"` + prefix + `"}`
	if _, err := c.callers[0].do(ctx, "POST", "/v1/dynamic/leases/revoke-prefix?wait=0", body, 200, 202); err != nil {
		return 0, 0, err
	}
	marked = time.Since(begun)
	_, err = c.callers[0].do(ctx, "POST", "/v1/dynamic/leases/revoke-prefix?wait=150s", body, 200)
	return marked, time.Since(begun), err
}
