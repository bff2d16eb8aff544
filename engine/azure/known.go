package azure

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// knownFor is how long it is believed what a role or a group is called.
const knownFor = 5 * time.Minute

// known remembers what names mean, so that a credential costs no look-ups for what hardly changes.
type known struct {
	mu  sync.Mutex
	all map[string]meaning
}

type meaning struct {
	id string
	at time.Time
}

func newKnown() *known { return &known{all: map[string]meaning{}} }

func (k *known) find(name string) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, ok := k.all[name]
	return m.id, ok && time.Since(m.at) < knownFor
}

func (k *known) keep(name, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all[name] = meaning{id, time.Now()}
}

func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.all)
}

// demands are what roles have asked for since the start: health looks whether root has the rights for it.
type demands struct {
	scopes map[string]bool
	groups bool
}

func (e *Engine) demand(r *role) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range r.AzureRoles {
		e.asked.scopes[e.scopeOf(a)] = true
	}
	e.asked.groups = e.asked.groups || len(r.AzureGroups) > 0
}

func (e *Engine) demanded() (scopes []string, groups bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.asked.scopes)), e.asked.groups
}

// scopeOf is the scope of a role: the configured subscription where it names none.
func (e *Engine) scopeOf(a azureRole) string {
	if a.Scope == "" && e.config.SubscriptionID != "" {
		return "/subscriptions/" + e.config.SubscriptionID
	}
	return a.Scope
}

// subscriptionOf is the subscription that a scope, or a path in it, is in; empty for a management group.
func subscriptionOf(scope string) string {
	rest, ok := strings.CutPrefix(scope, "/subscriptions/")
	id, _, _ := strings.Cut(rest, "/")
	if !ok || !guid(id) {
		return ""
	}
	return "/subscriptions/" + id
}

// definitionOf finds the role definition that a role means.
func (e *Engine) definitionOf(ctx context.Context, a azureRole) (definition, error) {
	scope := e.scopeOf(a)
	if scope == "" {
		return definition{}, refused("azure_roles: a role without a scope is for the subscription, and the engine has no subscription_id")
	}
	if a.RoleID != "" {
		d, err := e.client.definitionByID(ctx, scope, a.RoleID)
		if notFound(err) {
			err = refused("azure_roles: Azure has no role " + a.RoleID + " at " + scope)
		}
		return d, err
	}
	found, err := e.client.definitionsNamed(ctx, scope, a.RoleName)
	if err != nil {
		return definition{}, err
	}
	found = slices.DeleteFunc(found, func(d definition) bool { return !strings.EqualFold(d.Properties.RoleName, a.RoleName) })
	switch len(found) {
	case 0:
		return definition{}, refused("azure_roles: Azure has no role " + quoted(a.RoleName) + " at " + scope)
	case 1:
		return found[0], nil
	}
	return definition{}, refused("azure_roles: several roles at " + scope + " are called " + quoted(a.RoleName) + ": give the role_id")
}

// definitionID is the path of the role definition that a role means.
func (e *Engine) definitionID(ctx context.Context, a azureRole) (string, error) {
	name := "role " + e.scopeOf(a) + " " + a.RoleID + a.RoleName
	if id, ok := e.known.find(name); ok {
		return id, nil
	}
	d, err := e.definitionOf(ctx, a)
	if err != nil {
		return "", err
	}
	e.known.keep(name, d.ID)
	return d.ID, nil
}

// groupOf finds the group that a role means.
func (e *Engine) groupOf(ctx context.Context, group string) (groupOf, error) {
	if guid(group) {
		g, err := e.client.groupByID(ctx, group)
		if notFound(err) {
			err = refused("azure_groups: there is no group " + group)
		}
		return g, err
	}
	found, err := e.client.groupsNamed(ctx, group)
	if err != nil {
		return groupOf{}, err
	}
	found = slices.DeleteFunc(found, func(g groupOf) bool { return g.DisplayName != group })
	switch len(found) {
	case 0:
		return groupOf{}, refused("azure_groups: there is no group " + quoted(group))
	case 1:
		return found[0], nil
	}
	return groupOf{}, refused("azure_groups: several groups are called " + quoted(group) + ": give the object id")
}

// groupID is the object id of the group that a role means.
func (e *Engine) groupID(ctx context.Context, group string) (string, error) {
	if guid(group) {
		return group, nil
	}
	if id, ok := e.known.find("group " + group); ok {
		return id, nil
	}
	g, err := e.groupOf(ctx, group)
	if err != nil {
		return "", err
	}
	e.known.keep("group "+group, g.ID)
	return g.ID, nil
}
