package source

import (
	"context"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/store"
)

// setTerms gives next the terms of its keys when it takes the place of old, nil for none, now by the clock
// that versions of secrets are dated with.
func (s *Service) setTerms(ctx context.Context, old, next *Engine) error {
	return s.store.Read(ctx, func(r store.Reader) error {
		next.doc.KeyTerms = keyTerms(old, next, r.Now())
		return nil
	})
}

// keyTerms are what setTerms sets. A key that is older than the first of them is one that the engine found
// when it began: what it decides is over.
func keyTerms(old, next *Engine, now time.Time) []engine.KeyTerms {
	if !next.Config.Listed {
		return nil
	}
	present := termsOf(next)
	present.From = now
	if old == nil || !old.Config.Listed || old.Config.RootCredentialsPath != next.Config.RootCredentialsPath {
		return []engine.KeyTerms{present}
	}
	terms := slices.Clone(old.doc.KeyTerms)
	if len(terms) == 0 { // of an engine that was never changed since terms are kept
		terms = []engine.KeyTerms{termsOf(old)}
	}
	if last := terms[len(terms)-1]; last.Lead == present.Lead && last.MaxTTL == present.MaxTTL {
		return terms
	}
	terms = append(terms, present)
	for len(terms) > 1 && over(terms, now) {
		terms = terms[1:]
	}
	return terms
}

func termsOf(e *Engine) engine.KeyTerms {
	return engine.KeyTerms{Lead: api.Duration(e.Config.KeyLead), MaxTTL: e.doc.MaxTTL}
}

// over tells whether nothing is left that the first terms have decided: the last key of their time signs,
// and what the one before it signed has ended, whichever terms that was made under, with an hour for clocks that differ.
func over(terms []engine.KeyTerms, now time.Time) bool {
	longest := time.Duration(0)
	for _, t := range terms {
		longest = max(longest, t.MaxTTL.Std())
	}
	return terms[1].From.Add(terms[0].Lead.Std() + longest + time.Hour).Before(now)
}
