package enginetest

import (
	"context"
	"fmt"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/proxy"
)

func testRotateRoot(b *bench) {
	e := b.open()
	r, ok := e.(engine.RootRotator)
	if !ok {
		b.Skip("the engine does not rotate its root")
	}
	before := b.issue(e)
	candidate, err := r.PlanRoot(b.Context())
	if err != nil {
		b.Fatalf("plan root: %v", err)
	}
	for range 2 {
		if err := r.SetRoot(b.Context(), candidate); err != nil {
			b.Fatalf("set root: %v", err)
		}
	}
	b.works(b.issue(e).Data) // the engine goes on

	next := b.target.Open(b.T, Opening{Root: candidate})
	b.Cleanup(next.Close)
	b.revoke(next, before.recipe)
	b.dead(before.Plan)

	// A crash between the source and the store: another engine, which still
	// knows the old root as current, is told to set the same candidate.
	again, err := next.(engine.RootRotator).PlanRoot(b.Context())
	if err != nil {
		b.Fatalf("plan root: %v", err)
	}
	for _, x := range []engine.Engine{next, e} {
		if err := x.(engine.RootRotator).SetRoot(b.Context(), again); err != nil {
			b.Fatalf("set root from an engine that was left behind: %v", err)
		}
	}
}

func testUnreachable(b *bench) {
	e, p := b.openBehindProxy()
	c := b.issueSoon(e)
	p.Refuse()
	p.CutAll()
	b.fails(e, c)
	b.recovers(e, p, c)
}

func testBlackHole(b *bench) {
	e, p := b.openBehindProxy()
	c := b.issueSoon(e)
	p.BlackHole()
	b.fails(e, c)
	b.recovers(e, p, c)
}

// testFrozen keeps everything back and delivers it later, as a frozen source
// would.
func testFrozen(b *bench) {
	e, p := b.openBehindProxy()
	c := b.issueSoon(e)
	p.Hold()
	b.fails(e, c)
	b.recovers(e, p, c)
}

// fails runs every operation against a source that cannot answer. Each ends in
// time and says what may be left.
func (b *bench) fails(e engine.Engine, c issued) {
	b.within("issue", func(ctx context.Context) {
		_, err := e.Issue(ctx, b.plan(e))
		b.wantKind("issue", err, engine.Unreachable, engine.Uncertain)
	})
	b.within("revoke", func(ctx context.Context) {
		_, err := e.Revoke(ctx, c.recipe)
		b.wantKind("revoke", err, engine.Unreachable, engine.Uncertain)
	})
	b.within("look up", func(ctx context.Context) {
		_, err := e.Lookup(ctx, c.recipe)
		b.wantKind("look up", err, engine.Unreachable, engine.Uncertain)
	})
	b.within("check", func(ctx context.Context) {
		if h := e.Check(ctx); h.Status != "unreachable" || h.Error == "" {
			b.Errorf("health of a source that does not answer: %+v", h)
		}
	})
}

func (b *bench) recovers(e engine.Engine, p *proxy.Proxy, c issued) {
	p.Pass()
	b.soon("healthy after the source came back", func() error {
		if h := e.Check(b.Context()); h.Status != "healthy" {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
	b.works(c.Data)
	b.soon("revoke", func() error { _, err := e.Revoke(b.Context(), c.recipe); return err })
	b.dead(c.Plan)
	b.works(b.issueSoon(e).Data)
}

func testCloseTwice(b *bench) {
	e := b.target.Open(b.T, Opening{})
	c := b.issue(e)
	e.Close()
	e.Close()
	if _, err := e.Issue(b.Context(), b.plan(e)); err == nil {
		b.Error("a closed engine issues")
	}
	b.works(c.Data)
}
