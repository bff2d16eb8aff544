package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/mysqltest"
	"github.com/scaivault/scaivault/test/redistest"
	"github.com/scaivault/scaivault/test/servertest"
)

// other is a source that is not PostgreSQL, with a client that does the engine's work by hand: as
// the same root, on one connection per caller, with the statements that make an account and nothing
// before or behind them.
type other interface {
	title() string
	root() string // its name
	// describe is the engine's configuration but for the root, and what its role says of rights; both are new.
	describe() (config map[string]any, role client.Document)
	create(ctx context.Context, caller int, name string) error
	drop(ctx context.Context, names []string) error
}

// typed is another source whose engine is of a type of its own, with a root of other fields than a name
// and a password.
type typed interface {
	other
	kind() string
	fields() map[string]string // of the root
}

// The engines beside each other on one server.
const (
	nothing = "nothing" // its source does nothing
	actual  = "actual"
)

// engines measures issuing at the other sources, each for itself.
func (b *bench) engines(ctx context.Context) error {
	var starts []func(context.Context, *servertest.Stand) (other, error)
	for _, kind := range mysqltest.Kinds() {
		starts = append(starts, func(ctx context.Context, s *servertest.Stand) (other, error) { return newMySQL(ctx, s, kind) })
	}
	for _, kind := range redistest.Kinds() {
		starts = append(starts, func(ctx context.Context, s *servertest.Stand) (other, error) { return newRedis(ctx, s, kind) })
	}
	starts = append(starts, func(ctx context.Context, s *servertest.Stand) (other, error) { return newMongoDB(ctx, s), nil })
	starts = append(starts, func(context.Context, *servertest.Stand) (other, error) { return newCertificates() })
	for _, start := range starts {
		err := servertest.OnStand(func(s *servertest.Stand) error {
			o, err := start(ctx, s)
			if err != nil {
				return err
			}
			return b.onOther(ctx, o)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// onOther measures one source.
func (b *bench) onOther(ctx context.Context, o other) (err error) {
	h, err := b.newHome(ctx, embedded)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	v, err := startVault(ctx, b.idle, h)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w; the server's log: %s", o.title(), err, v.tail())
		}
		err = errors.Join(err, v.close())
	}()
	if err := configure(ctx, v, o); err != nil {
		return err
	}
	var callers []*caller
	for range most {
		callers = append(callers, v.caller())
	}
	defer func() {
		for _, c := range callers {
			c.close()
		}
	}()
	for _, n := range []int{1, most} {
		what := fmt.Sprintf("credentials/s, %d callers", n)
		if !b.rows.MatchString(o.title() + ": " + what) {
			continue
		}
		b.say("%s: %s", o.title(), what)
		t, err := b.three(ctx, b.byHand(o, n), v.issuing(callers[:n], b.turn(), nothing, member), v.issuing(callers[:n], b.turn(), actual, member))
		if err != nil {
			return err
		}
		if n == 1 {
			b.report.share(what, o.title(), t, 0)
			b.report.added("ms per credential, 1 callers", o.title(), t)
		} else {
			b.report.share(what, o.title(), t, 0.7)
		}
	}
	return nil
}

// configure makes both engines, with the product's defaults, and a role of each.
func configure(ctx context.Context, v *vault, o other) error {
	c, err := v.client()
	if err != nil {
		return err
	}
	if err := rootSecret(ctx, c, o.root(), servertest.GuidePassword); err != nil {
		return err
	}
	kind := "database"
	if o, ok := o.(typed); ok {
		kind = o.kind()
		if err := rewriteRoot(ctx, c, o.fields()); err != nil {
			return err
		}
	}
	config, role := o.describe()
	config["root_credentials_path"], role["name"] = rootPath, member
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	for _, engine := range []struct {
		api.EngineRequest
		role client.Document
	}{
		{api.EngineRequest{Name: nothing, Type: "idle", Config: json.RawMessage(`{"root_credentials_path": "` + rootPath + `"}`)}, client.Document{"name": member}},
		{api.EngineRequest{Name: actual, Type: kind, Config: text}, role},
	} {
		if _, err := c.CreateEngine(ctx, engine.EngineRequest); err != nil {
			return fmt.Errorf("make engine %s: %w", engine.Name, err)
		}
		if _, err := c.CreateRole(ctx, engine.Name, engine.role); err != nil {
			return fmt.Errorf("make the role of %s: %w", engine.Name, err)
		}
	}
	return nil
}

// rewriteRoot puts other fields into the root secret.
func rewriteRoot(ctx context.Context, c *client.Client, fields map[string]string) error {
	data := map[string]json.RawMessage{}
	for name, value := range fields {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		data[name] = text
	}
	_, err := c.WriteSecret(ctx, rootPath, api.SecretWrite{Data: data})
	return err
}

// byHand makes accounts for a while, and drops them afterwards, outside the time that counts.
func (b *bench) byHand(o other, callers int) side {
	return func(ctx context.Context) (sample, error) {
		made := make([][]string, callers)
		s, err := during(ctx, callers, b.turn(), func(ctx context.Context, caller int) error {
			name := newName()
			made[caller] = append(made[caller], name)
			return o.create(ctx, caller, name)
		})
		for batch := range slices.Chunk(slices.Concat(made...), batchSize) {
			err = errors.Join(err, o.drop(ctx, batch))
		}
		return s, err
	}
}

// triple holds the turns of three sides; those of one index are neighbours.
type triple struct {
	alone, idle, ours []sample
	flush             float64 // to disk meanwhile, in ms
}

// three has the sides take turns, the first of which does not count.
func (b *bench) three(ctx context.Context, alone, idle, ours side) (t triple, err error) {
	if _, err := inTurns(ctx, 1, alone, idle, ours); err != nil {
		return t, err
	}
	samples, err := inTurns(ctx, b.rounds(), alone, idle, ours)
	if err != nil {
		return t, err
	}
	t = triple{alone: samples[0], idle: samples[1], ours: samples[2]}
	t.flush, err = flushTime(b.dir)
	return t, err
}

// shares are of each round how near ours comes to the slower of the two that it is made of, sorted.
func (t triple) shares() []float64 {
	var shares []float64
	for i := range t.ours {
		shares = append(shares, t.ours[i].rate()/min(t.alone[i].rate(), t.idle[i].rate()))
	}
	slices.Sort(shares)
	return shares
}

// added is of each round the time in ms by which half of ours take longer than half of those by
// hand, sorted.
func (t triple) added() []float64 {
	var added []float64
	for i := range t.ours {
		added = append(added, p50(t.ours[i])-p50(t.alone[i]))
	}
	slices.Sort(added)
	return added
}

// allowed is the time in ms that a credential may take beyond the source's: two durable commits and
// 1 ms.
func (t triple) allowed() float64 { return 2*t.flush + 1 }
