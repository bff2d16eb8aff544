package gcp

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// policyVersion is the one in which conditions are shown. A policy that is read in an older one lacks
// the conditions of others, and would lose them when it is written.
const policyVersion = 3

// service is where a kind of resource has its policy.
type service struct {
	form       *regexp.Regexp
	endpoint   func(*endpoints) string
	version    string
	reading    string // method of getIamPolicy
	inBody     bool   // the version that is wanted is said in the body, not in the query
	conditions bool   // its policies take conditions
	permission string // begins the names of the permissions that getting and setting need
}

const (
	projectPart = `projects/[a-z][a-z0-9-]{4,28}[a-z0-9]`
	namePart    = `[A-Za-z][A-Za-z0-9._-]{0,254}`
)

// services are the resources whose policies can be changed here. Each line is checked against
// Google's own description of the API in the tests.
var services = []service{
	{form(projectPart), manager, "v3", http.MethodPost, true, true, "resourcemanager.projects"},
	{form(`folders/[0-9]{1,20}`), manager, "v3", http.MethodPost, true, true, "resourcemanager.folders"},
	{form(`organizations/[0-9]{1,20}`), manager, "v3", http.MethodPost, true, true, "resourcemanager.organizations"},
	{form(projectPart + `/serviceAccounts/[a-z0-9-]{1,63}@[a-z0-9.-]{1,100}`), iam, "v1", http.MethodPost, false, false, "iam.serviceAccounts"},
	{form(projectPart + `/topics/` + namePart), pubsub, "v1", http.MethodGet, false, false, "pubsub.topics"},
	{form(projectPart + `/subscriptions/` + namePart), pubsub, "v1", http.MethodGet, false, false, "pubsub.subscriptions"},
	{form(projectPart + `/secrets/` + namePart), secrets, "v1", http.MethodGet, false, true, "secretmanager.secrets"},
}

func form(text string) *regexp.Regexp { return regexp.MustCompile(`^` + text + `$`) }

func iam(p *endpoints) string     { return p.IAM }
func manager(p *endpoints) string { return p.ResourceManager }
func pubsub(p *endpoints) string  { return p.PubSub }
func secrets(p *endpoints) string { return p.SecretManager }

// resource is one with a policy.
type resource struct {
	name string
	service
}

func resourceOf(name string) (resource, bool) {
	for _, s := range services {
		if s.form.MatchString(name) {
			return resource{name, s}, true
		}
	}
	return resource{}, false
}

func (e *Engine) policyURL(r resource, verb string) string {
	return r.endpoint(&e.config.Endpoints) + "/" + r.version + "/" + r.name + ":" + verb
}

// policy is a policy as it was read. What we do not know of it is written back as it is.
type policy map[string]json.RawMessage

// entry is one binding of a policy.
type entry map[string]json.RawMessage

func (p policy) entries() (all []entry, err error) {
	if raw, ok := p["bindings"]; ok {
		err = json.Unmarshal(raw, &all)
	}
	return all, err
}

// versioned tells whether a write of the policy fails where somebody else has written it since.
func (p policy) versioned() bool {
	var etag string
	return json.Unmarshal(p["etag"], &etag) == nil && etag != ""
}

func (p policy) setEntries(all []entry) {
	p["bindings"] = encoded(all)
	p["version"] = encoded(policyVersion)
}

func (en entry) members() (members []string) {
	_ = json.Unmarshal(en["members"], &members) // what is not a list has no member of ours
	return members
}

func encoded(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts, numbers, and what was read as JSON always encode
	}
	return b
}

// changePolicy reads a policy, lets change edit its bindings, and writes it if it says so; again
// while somebody else has written it since, until the context ends. So nobody's change is lost, and
// what was written without an answer is seen the next time.
func (e *Engine) changePolicy(ctx context.Context, attempt string, r resource, lane engine.Lane, change func([]entry) ([]entry, bool), missing func(*apiError) bool) error {
	release, err := e.holdPolicy(ctx, attempt, r.name)
	if err != nil {
		return err
	}
	defer release()
	for tried := 0; ; tried++ {
		err := e.tryPolicy(ctx, attempt, r, lane, change)
		a := answerOf(err)
		pause := backoff(tried)
		if a != nil && a.conflict() { // whoever was faster is done
			pause = backoff(0)
		}
		if a == nil || !(a.conflict() || a.status >= 500 || missing != nil && missing(a)) || !engine.Wait(ctx, pause) {
			if a != nil && a.conflict() {
				return failure(engine.Busy, attempt+": the policy of "+r.name+" is changed by others faster than it can be followed", err)
			}
			return err
		}
	}
}

func (e *Engine) tryPolicy(ctx context.Context, attempt string, r resource, lane engine.Lane, change func([]entry) ([]entry, bool)) error {
	p := policy{}
	options := map[string]int{"requestedPolicyVersion": policyVersion}
	c := call{attempt: attempt, method: r.reading, url: e.policyURL(r, "getIamPolicy"), out: &p, lane: lane, repeatable: true}
	if r.inBody {
		c.in = map[string]any{"options": options}
	} else {
		c.url += "?" + url.Values{"options.requestedPolicyVersion": {"3"}}.Encode()
	}
	if err := e.do(ctx, c); err != nil {
		return err
	}
	all, err := p.entries()
	if err != nil {
		return failure(engine.Refused, attempt+": the policy of "+r.name+" cannot be read", err)
	}
	changed, differs := change(all)
	if !differs {
		return nil
	}
	if !p.versioned() { // Google would write over whatever others have written since
		return failure(engine.Refused, attempt+": the policy of "+r.name+" was read without an etag, so it cannot be changed safely", nil)
	}
	p.setEntries(changed)
	set := post(attempt, e.policyURL(r, "setIamPolicy"), map[string]any{"policy": p}, nil)
	set.lane = lane
	return e.do(ctx, set)
}

// holdPolicy lets one operation of this engine at a time change a policy: they would only undo each
// other's attempts.
func (e *Engine) holdPolicy(ctx context.Context, attempt, name string) (release func(), err error) {
	e.mu.Lock()
	held, ok := e.policies[name]
	if !ok {
		held = make(chan struct{}, 1)
		e.policies[name] = held
	}
	e.mu.Unlock()
	select {
	case held <- struct{}{}:
		return func() { <-held }, nil
	case <-ctx.Done():
		return nil, failure(engine.Busy, attempt+": the policy of "+name+" is being changed for others", ctx.Err())
	}
}

// bind gives the account of a credential its roles on a resource. Where the source takes conditions
// it ends them by itself.
func (e *Engine) bind(ctx context.Context, b binding, r recipe) error {
	to, ok := resourceOf(b.Resource)
	if !ok {
		return refused("%s: %s is not a resource whose policy can be changed here", issuing, b.Resource)
	}
	member := "serviceAccount:" + r.Email
	return e.changePolicy(ctx, issuing, to, engine.Issuing, func(all []entry) ([]entry, bool) {
		differs := false
		for _, name := range b.Roles {
			if slices.ContainsFunc(all, func(en entry) bool {
				return string(en["role"]) == string(encoded(name)) && slices.Contains(en.members(), member)
			}) {
				continue
			}
			differs = true
			en := entry{"role": encoded(name), "members": encoded([]string{member})}
			if to.conditions {
				en["condition"] = encoded(map[string]string{
					"title":       r.Username,
					"description": "of a credential made by ScaiVault",
					"expression":  `request.time < timestamp("` + r.Ends.UTC().Format(time.RFC3339) + `")`,
				})
			}
			all = append(all, en)
		}
		return all, differs
	}, unknownMember)
}

// unbind takes the account of a credential out of the policy of a resource, with all roles that
// anybody gave it there. A resource that is gone has no policy.
func (e *Engine) unbind(ctx context.Context, name string, r recipe) error {
	of, ok := resourceOf(name)
	if !ok {
		return refused("%s: %s is not a resource whose policy can be changed here", revoking, name)
	}
	err := e.changePolicy(ctx, revoking, of, engine.Revoking, func(all []entry) ([]entry, bool) {
		differs := false
		var kept []entry
		for _, en := range all {
			before := en.members()
			after := slices.DeleteFunc(slices.Clone(before), func(m string) bool { return isMember(m, r.Email) })
			switch {
			case len(after) == len(before):
				kept = append(kept, en)
				continue
			case len(after) > 0:
				en["members"] = encoded(after)
				kept = append(kept, en)
			}
			differs = true
		}
		return kept, differs
	}, nil)
	if gone(err) {
		return nil
	}
	return err
}

// isMember tells an account in a policy, also after it was deleted.
func isMember(member, email string) bool {
	return member == "serviceAccount:"+email || strings.HasPrefix(member, "deleted:serviceAccount:"+email+"?uid=")
}
