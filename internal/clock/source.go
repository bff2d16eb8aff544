package clock

import (
	"context"
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

const (
	// recordSources is how often the distance of a source's clock is recorded.
	recordSources = 10 * time.Minute
	// answerTime bounds what a source takes to tell the time: at which moment of it the source looked
	// at its clock is not known, and the agreed time is off by that when it was told by a source.
	answerTime = time.Second
)

func distanceKey(engineID string) string { return "clock/source/" + engineID }

// distance is the most that a source's clock was before the agreed time when it was last recorded; nil
// when nobody knows.
func distance(r store.Reader, engineID string) (d *time.Duration, err error) {
	doc, err := r.Meta(distanceKey(engineID))
	if err == nil && len(doc) > 0 {
		err = json.Unmarshal(doc, &d)
	}
	return d, err
}

// anyDistance tells whether any source could tell how much time passed.
func (g *Guard) anyDistance(r store.Reader) (bool, error) {
	for _, o := range g.Config().List(store.DefaultTenant, store.KindEngine, "") {
		if d, err := distance(r, o.ID); d != nil || err != nil {
			return d != nil, err
		}
	}
	return false, nil
}

// dropDistances gives up what is known of the sources' clocks: the agreed time goes otherwise than it did.
func (g *Guard) dropDistances(tx store.Tx) error {
	for _, o := range g.Config().List(store.DefaultTenant, store.KindEngine, "") {
		d, err := distance(tx, o.ID)
		if err == nil && d != nil {
			err = tx.PutMeta(distanceKey(o.ID), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Asks tells whether a source's clock is to be read now: to judge a jump, or to be recorded.
func (g *Guard) Asks(engineID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, known := g.heard[engineID]
	return g.doubtful() || !known || time.Since(last) > recordSources
}

// answer is what a source's clock showed at some moment between a question and its answer.
type answer struct {
	engineID string
	shown    time.Time
	came     time.Time // in this process's time
	took     time.Duration
}

// least is the earliest that it may be by the source's clock now.
func (a answer) least() time.Time { return a.shown.Add(time.Since(a.came)) }

// Heard is what a source's clock says, asked at a moment of this process's time, answered just now.
// It is recorded while all is well, and judges a jump otherwise: a source that went forward as well
// confirms the store's clock, one that did not contradicts it.
func (g *Guard) Heard(ctx context.Context, engineID string, shown, asked time.Time) error {
	a := answer{engineID, shown, time.Now(), time.Since(asked)}
	switch {
	case a.took > answerTime:
		return nil
	case g.Doubtful():
		return g.judge(ctx, a)
	}
	return g.recordDistance(ctx, a)
}

// recordDistance writes down the most that the source's clock may be before the agreed time, unless
// what is known already may be true.
func (g *Guard) recordDistance(ctx context.Context, a answer) error {
	var known *time.Duration
	if err := g.Store.Read(ctx, func(r store.Reader) (err error) { known, err = distance(r, a.engineID); return err }); err != nil {
		return err
	}
	least := a.least().Sub(g.Now())
	if known == nil || *known < least-noSkew || *known > least+a.took+noSkew {
		if err := g.Store.WriteRelaxed(ctx, func(tx store.Tx) error {
			// By the time as it is in the transaction: it may have jumped since the source was asked.
			doc, err := json.Marshal(a.least().Add(a.took).Sub(g.Now()))
			if err != nil {
				return err
			}
			return tx.PutMeta(distanceKey(a.engineID), doc)
		}); err != nil {
			return err
		}
	}
	g.mu.Lock()
	g.heard[a.engineID] = time.Now()
	g.mu.Unlock()
	return nil
}

// judge decides by what time it is to a source, at the least: nothing ends early by what it says.
func (g *Guard) judge(ctx context.Context, a answer) error {
	g.judging.Lock()
	defer g.judging.Unlock()
	var known *time.Duration
	raw, err := g.sample(ctx, func(r store.Reader) (err error) { known, err = distance(r, a.engineID); return err })
	if err != nil || known == nil { // it says nothing: nobody knows how far it was from ours
		return err
	}
	shift, version := g.shift()
	said, told := raw.Add(shift), a.least().Add(-*known)
	g.mu.Lock()
	if version != g.version || !g.doubtful() { // decided meanwhile
		g.mu.Unlock()
		return nil
	}
	now, near := g.now(), step
	if g.unsure {
		near = gap
	}
	passed := said.Sub(now)
	confirmed := passed > step && said.Sub(told) <= near
	switch {
	case confirmed:
		now = said
	case g.unsure && told.After(now): // time that passed before the start
		now = told
	}
	g.mu.Unlock()
	if err := g.move(ctx, now, false); err != nil {
		return err
	}
	if confirmed {
		g.log.Warn("the store's clock went forward, and a source's clock confirms it", "by", passed.Round(time.Second))
		return nil
	}
	if said.Sub(now).Abs() <= drift {
		return nil
	}
	return g.follow(ctx, now.Sub(raw), "the store's clock is wrong by a source's clock: the agreed time goes on without it")
}
