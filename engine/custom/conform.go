package custom

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// Trial is a program with what it is tried with.
type Trial struct {
	Type    Type
	Options engine.Options // Config and Root; the rest is given
	Role    json.RawMessage
	Request json.RawMessage
}

// Verdict is what a law came to.
type Verdict struct {
	Law     string `json:"law"`
	Passed  bool   `json:"passed"`
	Skipped bool   `json:"skipped,omitempty"` // the program has no such function, which is allowed
	Why     string `json:"why,omitempty"`     // it did not pass, or was skipped
}

// Run tries a program out, law by law, with accounts of its own, and tells each verdict. It fails only
// where the program could not be tried at all.
func (t Trial) Run(ctx context.Context, tell func(Verdict)) error {
	o := t.Options
	o.Installation, o.EngineName = "inst_trial", "trial"
	o.Namer = statement.NewNamer(o.Installation, []byte(rand.Text()), nil)
	opened, err := t.Type.Open(ctx, o)
	if err != nil {
		return err
	}
	defer opened.Close()
	bench := &bench{ctx: ctx, role: t.Role, request: t.Request}
	switch e := opened.(type) {
	case *Engine:
		bench.Engine = e
	case listing:
		bench.Engine = e.Engine
	}
	for _, law := range laws() {
		v := Verdict{Law: law.text}
		if v.Skipped = law.needs != "" && !bench.can[law.needs]; v.Skipped {
			v.Why = "it has no function " + law.needs
		} else if err := law.holds(bench); err != nil {
			v.Why = err.Error()
		} else {
			v.Passed = true
		}
		tell(v)
	}
	return nil
}

// law is one that every program keeps.
type law struct {
	text  string
	needs string // the function without which it does not apply
	holds func(b *bench) error
}

func laws() []law {
	return []law{
		{"check says ok, and every time the same source", "", (*bench).checks},
		{"issue makes a credential", "", (*bench).issues},
		{"issue says name_taken for a name that is there, and leaves it", "", (*bench).taken},
		{"issue makes nothing after the deadline", "", (*bench).late},
		{"lookup says usable after issue, absent before it and after revoke", functionLookup, (*bench).looksUp},
		{"list has what was made, and not what was revoked", functionList, (*bench).lists},
		{"renew can be repeated", functionRenew, (*bench).renews},
		{"revoke can be repeated", "", (*bench).revokesTwice},
		{"revoke needs no more than the name", "", (*bench).revokesByName},
		{"revoke of a name that never was is done at once", "", (*bench).revokesUnknown},
		{"a function that does not exist is refused", "", (*bench).refuses},
		{"revoke ends what was cut off in the middle of issue", "", (*bench).cutOff},
		{"all that the trial has made is revoked at its end", "", (*bench).clears},
	}
}

// bench is a program at its trial.
type bench struct {
	*Engine
	ctx           context.Context //nolint:containedctx // one trial is one call
	role, request json.RawMessage
	made          []*engine.Plan
}

func (b *bench) plan(deadline time.Time) (*engine.Plan, error) {
	document, err := json.Marshal(map[string]json.RawMessage{"parameters": orNull(b.role)})
	if err != nil {
		return nil, err
	}
	role, err := parseRole(document)
	if err != nil {
		return nil, err
	}
	var params json.RawMessage
	if given(b.request) {
		if params, err = json.Marshal(map[string]json.RawMessage{"parameters": b.request}); err != nil {
			return nil, err
		}
	}
	p, err := b.Plan(b.ctx, engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "trial", Role: role, Params: params,
		ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Second)})
	if err == nil {
		p.Deadline = deadline
		b.made = append(b.made, p)
	}
	return p, err
}

func orNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("null")
	}
	return raw
}

// issue makes a credential, in all the time that it may take.
func (b *bench) issue() (*engine.Plan, engine.Recipe, error) {
	p, err := b.plan(time.Now().Add(b.config.OperationTimeout.Std()))
	if err != nil {
		return nil, nil, err
	}
	recipe, err := b.Issue(b.ctx, p)
	return p, recipe, err
}

func (b *bench) checks() error {
	if h := b.Check(b.ctx); h.Status != "healthy" {
		return errors.New(h.Error)
	}
	return nil
}

func (b *bench) issues() error {
	_, _, err := b.issue()
	return err
}

func (b *bench) taken() error {
	p, _, err := b.issue()
	if err != nil {
		return err
	}
	again := *p
	again.Data, again.Deadline = nil, time.Now().Add(b.config.OperationTimeout.Std())
	if _, err = b.Issue(b.ctx, &again); engine.KindOf(err) != engine.NameTaken {
		return fmt.Errorf("a second issue of one name ended as: %w", orNothing(err))
	}
	return b.is(p.Recipe, engine.Usable)
}

func orNothing(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

// late asks for a credential whose deadline has passed. The engine itself would not.
func (b *bench) late() error {
	p, err := b.plan(time.Now().Add(-time.Minute))
	if err != nil {
		return err
	}
	r, err := b.readRecipe(p.Recipe)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.config.OperationTimeout.Std())
	defer cancel()
	q := r.request(functionIssue)
	until := p.ExpiresAt.UTC()
	q.ExpiresAt, q.Deadline = &until, p.Deadline.UTC().Truncate(time.Millisecond)
	q.Protocol, q.Engine, q.Installation, q.Root, q.Parameters.Engine = protocolVersion, b.options.EngineName, b.options.Installation, b.options.Root, b.config.Parameters
	if reply, _, err := b.runtime.call(ctx, &q); err == nil && b.read(&q, reply, &issued{}) == nil {
		return errors.New("it made a credential whose deadline had passed a minute ago: have the source compare, in the same transaction")
	}
	return b.is(p.Recipe, engine.Absent)
}

// is looks a credential up, where the program can.
func (b *bench) is(r engine.Recipe, want engine.State) error {
	if !b.can[functionLookup] {
		return nil
	}
	found, err := b.Lookup(b.ctx, r)
	if err == nil && found.State != want {
		names := map[engine.State]string{engine.Absent: "absent", engine.Usable: "usable", engine.Unusable: "unusable", engine.Foreign: "foreign"}
		err = fmt.Errorf("lookup says %s in the place of %s", names[found.State], names[want])
	}
	return err
}

func (b *bench) looksUp() error {
	p, err := b.plan(time.Now().Add(b.config.OperationTimeout.Std()))
	if err != nil {
		return err
	}
	if err := b.is(p.Recipe, engine.Absent); err != nil {
		return err
	}
	recipe, err := b.Issue(b.ctx, p)
	if err != nil {
		return err
	}
	if err := b.is(p.Recipe, engine.Usable); err != nil {
		return err
	}
	if _, err := b.Revoke(b.ctx, recipe); err != nil {
		return err
	}
	return b.is(recipe, engine.Absent)
}

func (b *bench) lists() error {
	p, recipe, err := b.issue()
	if err != nil {
		return err
	}
	if there, err := b.listed(p.Username); err != nil || !there {
		return fmt.Errorf("what was made is not in the list: %w", orNothing(err))
	}
	if _, err := b.Revoke(b.ctx, recipe); err != nil {
		return err
	}
	if there, err := b.listed(p.Username); err != nil || there {
		return fmt.Errorf("what was revoked is still in the list: %w", orNothing(err))
	}
	return nil
}

func (b *bench) listed(name string) (bool, error) {
	accounts, err := listing{b.Engine}.List(b.ctx)
	return slices.ContainsFunc(accounts, func(a engine.Account) bool { return a.Username == name }), err
}

func (b *bench) renews() error {
	p, recipe, err := b.issue()
	if err != nil {
		return err
	}
	for range 2 {
		if err := b.Renew(b.ctx, recipe, p.ExpiresAt.Add(time.Hour)); err != nil {
			return err
		}
	}
	return b.is(recipe, engine.Usable)
}

func (b *bench) revokesTwice() error {
	_, recipe, err := b.issue()
	if err != nil {
		return err
	}
	for range 2 {
		if _, err := b.Revoke(b.ctx, recipe); err != nil {
			return err
		}
	}
	return b.is(recipe, engine.Absent)
}

// revokesByName is what a crash leaves: nothing but the name is known.
func (b *bench) revokesByName() error {
	p, recipe, err := b.issue()
	if err != nil {
		return err
	}
	if _, err := b.Revoke(b.ctx, recipeOf(b.Engine, p.Username)); err != nil {
		return err
	}
	return b.is(recipe, engine.Absent)
}

func (b *bench) revokesUnknown() error {
	_, err := b.Revoke(b.ctx, recipeOf(b.Engine, b.newName("trial")))
	return err
}

func recipeOf(e *Engine, name string) engine.Recipe {
	return recipe{Source: e.source, Username: name}.encode()
}

func (b *bench) refuses() error {
	if b.call(b.ctx, &request{Function: "no_such_function"}, &renewed{}) == nil {
		return errors.New("it answers as if it had done something")
	}
	return nil
}

// cutOff kills the program in the middle, at several moments, and revokes what it may have made.
func (b *bench) cutOff() error {
	for _, after := range []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond, time.Second} {
		p, err := b.plan(time.Now().Add(after))
		if err != nil {
			return err
		}
		_, _ = b.Issue(b.ctx, p) // whatever it came to
		if _, err := b.Revoke(b.ctx, p.Recipe); err != nil {
			return err
		}
		if err := b.is(p.Recipe, engine.Absent); err != nil {
			return err
		}
	}
	return nil
}

// clears revokes all of the trial, what is dead already included.
func (b *bench) clears() error {
	var errs []error
	for _, p := range b.made {
		if _, err := b.Revoke(b.ctx, p.Recipe); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Username, err))
		}
	}
	return errors.Join(errs...)
}
