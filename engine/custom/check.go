package custom

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Limits of what a check may say.
const (
	maxWarnings = 20
	maxWarning  = 500
	maxSourceID = 200
)

// Check implements engine.Engine.
func (e *Engine) Check(ctx context.Context) engine.Health {
	begun := time.Now()
	found, err := e.ask(ctx)
	h := engine.Health{Status: "healthy", Latency: time.Since(begun), TLS: "none"}
	if err != nil {
		var known *engine.Error
		errors.As(err, &known)
		h.Status, h.Error = "misconfigured", known.Reason
		switch known.Kind {
		case engine.Unreachable, engine.Uncertain, engine.Busy:
			h.Status = "unreachable"
		}
		return h
	}
	h.Warnings = slices.Concat(e.cautions, found.Warnings)
	if e.source != "" && e.identity(found) != e.source {
		h.Status, h.Error = "misconfigured", "the program works on another source than when it was opened"
	}
	return h
}

// ask calls check. What the program says there is for administrators, and shown.
func (e *Engine) ask(ctx context.Context) (*checked, error) {
	found, q := &checked{}, &request{Function: functionCheck}
	if err := e.call(ctx, q, found); err != nil {
		return nil, err
	}
	if !found.OK {
		return nil, misconfigured("check the program: it says neither ok nor what is wrong", nil)
	}
	if q.repeatsRoot(found.SourceID) { // it is stored with every lease, in the clear
		return nil, misconfigured("check the program: source_id repeats a secret of the root", nil)
	}
	found.SourceID = printable(found.SourceID, maxSourceID)
	found.Warnings = found.Warnings[:min(len(found.Warnings), maxWarnings)]
	for i, w := range found.Warnings {
		found.Warnings[i] = q.shown(w, maxWarning)
	}
	return found, nil
}
