package gcp

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
)

const checking = "check the source"

// Check implements engine.Engine. What roles need, as far as they were used or saved since the engine
// was opened, must be there; what is missing for other roles is a warning.
func (e *Engine) Check(ctx context.Context) engine.Health {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	h := engine.Health{Status: "healthy", TLS: "verified"}
	for _, p := range e.config.Endpoints.all() {
		if strings.HasPrefix(*p.url, "http:") {
			h.TLS = "none"
		}
	}
	start := time.Now()
	err := e.examine(ctx, &h, start)
	switch {
	case err == nil && len(h.MissingGrants) == 0:
	case err == nil:
		h.Status, h.Error = "misconfigured", "root lacks a permission without which credentials cannot be made or ended"
	default:
		h.Error = plain(err).Reason
		h.Status = "unreachable"
		if k := engine.KindOf(err); k == engine.Misconfigured || k == engine.Refused {
			h.Status = "misconfigured"
		}
	}
	return h
}

func (e *Engine) examine(ctx context.Context, h *engine.Health, start time.Time) error {
	project, _ := resourceOf("projects/" + e.config.Project)
	all := need{project, slices.Concat(keyPermissions, accountPermissions[:2], []string{
		tokenPermission, "iam.serviceAccounts.list", "resourcemanager.projects.getIamPolicy", "resourcemanager.projects.setIamPolicy"})}
	missing, err := e.missing(ctx, checking, all)
	h.Latency = time.Since(start)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		h.Warnings = append(h.Warnings, "some kinds of roles cannot be made, and reconcile cannot compare: "+e.grant(project.name, missing))
	}
	e.mu.Lock()
	needs := maps.Clone(e.needs)
	e.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		missing, err := e.missing(ctx, checking, needs[name])
		switch {
		case gone(err):
			h.Warnings = append(h.Warnings, name+" is gone: the roles that name it make nothing")
			continue
		case err != nil:
			return err
		case len(missing) > 0:
			h.MissingGrants = append(h.MissingGrants, e.grant(name, missing))
			continue
		}
		if err := e.countKeys(ctx, name, h); err != nil {
			return err
		}
	}
	return e.examineRoot(ctx, h)
}

// countKeys warns before an account runs into Google's limit.
func (e *Engine) countKeys(ctx context.Context, name string, h *engine.Health) error {
	_, email, _ := strings.Cut(name, "/serviceAccounts/")
	of := accountOf(email)
	if of == nil {
		return nil
	}
	all, err := e.managedKeys(ctx, checking, of, engine.Revoking)
	if err == nil && len(all) >= fullAccount {
		h.Warnings = append(h.Warnings, crowded(email, len(all)))
	}
	if engine.KindOf(err) == engine.Refused { // roles of tokens need not see keys
		return nil
	}
	return err
}

// examineRoot warns of keys of the root that nobody may know of.
func (e *Engine) examineRoot(ctx context.Context, h *engine.Health) error {
	key := e.tokens.of().key
	if key == nil {
		return nil
	}
	all, err := e.managedKeys(ctx, checking, accountOf(key.ClientEmail), engine.Revoking)
	switch {
	case engine.KindOf(err) == engine.Refused:
		h.Warnings = append(h.Warnings, "the root cannot be rotated: it may not see its own keys")
		return nil
	case err == nil && len(all) > 1:
		h.Warnings = append(h.Warnings, "the account of the root has more keys than the one in use: delete those that nobody uses")
	}
	return err
}
