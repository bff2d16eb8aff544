package gcptest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Binding gives members a role.
type Binding struct {
	Role      string     `json:"role"`
	Members   []string   `json:"members"`
	Condition *Condition `json:"condition,omitempty"`
}

// Condition says when a binding holds.
type Condition struct {
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Expression  string `json:"expression"`
}

// policy is that of one resource.
type policy struct {
	generation int
	bindings   []Binding
	audit      json.RawMessage
}

const (
	maxMembers   = 1500
	withAuditing = `[{"service": "allServices", "auditLogConfigs": [{"logType": "DATA_READ"}]}]`
)

func (p *policy) etag() []byte { return fmt.Appendf(nil, "etag-%d", p.generation) }

func (p *policy) rename(from, to string) {
	for _, b := range p.bindings {
		for i, m := range b.Members {
			if m == from {
				b.Members[i] = to
				p.generation++
			}
		}
	}
}

// AddResource makes a resource with an empty policy.
func (s *Server) AddResource(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy(name)
}

// DefineRole says which permissions a role gives.
func (s *Server) DefineRole(name string, permissions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[name] = permissions
}

// Grant gives a member a role on a resource, as an administrator does.
func (s *Server) Grant(resource, role, member string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.policy(resource)
	p.bindings = normalised(append(p.bindings, Binding{Role: role, Members: []string{member}}))
	p.generation++
}

// Withdraw takes all roles on a resource from a member, as an administrator does.
func (s *Server) Withdraw(resource, member string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.policy(resource)
	for i := range p.bindings {
		p.bindings[i].Members = slices.DeleteFunc(p.bindings[i].Members, func(m string) bool { return m == member })
	}
	p.bindings = normalised(p.bindings)
	p.generation++
}

// HideEtags shows policies without their etags from now on.
func (s *Server) HideEtags() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noEtags = true
}

// Bindings are those of a resource now.
func (s *Server) Bindings(resource string) []Binding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return normalised(s.policy(resource).bindings)
}

// Members are all members of all policies, by resource.
func (s *Server) Members() map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]string{}
	for name, p := range s.policies {
		for _, b := range p.bindings {
			all[name] = append(all[name], b.Members...)
		}
	}
	return all
}

func (s *Server) policy(resource string) *policy {
	p := s.policies[resource]
	if p == nil {
		p = &policy{generation: 1, audit: json.RawMessage(withAuditing)}
		s.policies[resource] = p
	}
	return p
}

// normalised is how Google keeps bindings: one for each role and condition, members once and in order,
// none without members.
func normalised(bindings []Binding) []Binding {
	type place struct {
		role      string
		condition Condition
	}
	var order []place
	members := map[place][]string{}
	conditional := map[place]bool{}
	for _, b := range bindings {
		at := place{role: b.Role}
		if b.Condition != nil {
			at.condition = *b.Condition
			conditional[at] = true
		}
		if _, known := members[at]; !known {
			order = append(order, at)
		}
		members[at] = append(members[at], b.Members...)
	}
	var kept []Binding
	for _, at := range order {
		slices.Sort(members[at])
		b := Binding{Role: at.role, Members: slices.Compact(members[at])}
		if conditional[at] {
			b.Condition = &at.condition
		}
		if len(b.Members) > 0 {
			kept = append(kept, b)
		}
	}
	return kept
}

// existing is the policy of the resource that a request is about, for who has the permission there.
func (s *Server) existing(x *exchange, verb string) (*policy, error) {
	name := x.parameters["resource"]
	parts := strings.Split(name, "/")
	if len(parts) == 4 && parts[2] == "serviceAccounts" {
		if _, err := s.accountIn(x, name, "iam.serviceAccounts."+verb); err != nil {
			return nil, err
		}
		return s.policy(name), nil
	}
	kind := map[string]string{"projects": "resourcemanager.projects", "folders": "resourcemanager.folders", "organizations": "resourcemanager.organizations"}[parts[0]]
	if len(parts) == 4 {
		kind = map[string]string{"topics": "pubsub.topics", "subscriptions": "pubsub.subscriptions", "secrets": "secretmanager.secrets"}[parts[2]]
	}
	if err := s.permit(x, name, kind+"."+verb); err != nil {
		return nil, err
	}
	p := s.policies[name]
	if p == nil {
		return nil, fail(http.StatusNotFound, "NOT_FOUND", "%s does not exist.", name)
	}
	return p, nil
}

func (s *Server) getPolicy(x *exchange) (any, error) {
	p, err := s.existing(x, "getIamPolicy")
	if err != nil {
		return nil, err
	}
	var q struct {
		Options struct {
			Version int `json:"requestedPolicyVersion"`
		} `json:"options"`
	}
	if len(x.body) > 0 {
		if err := json.Unmarshal(x.body, &q); err != nil {
			return nil, err
		}
	}
	if q.Options.Version != 3 && x.r.URL.Query().Get("options.requestedPolicyVersion") != "3" {
		s.wrong = append(s.wrong, x.id+": a policy is read without its conditions")
	}
	return s.shownPolicy(x, p), nil
}

func (s *Server) shownPolicy(x *exchange, p *policy) any {
	shown := map[string]any{"version": 1, "etag": p.etag()}
	if s.noEtags {
		delete(shown, "etag")
	}
	if len(p.bindings) > 0 {
		shown["bindings"] = p.bindings
	}
	if slices.ContainsFunc(p.bindings, func(b Binding) bool { return b.Condition != nil }) {
		shown["version"] = 3
	}
	if strings.HasPrefix(x.id, "cloudresourcemanager.projects.") {
		shown["auditConfigs"] = p.audit
	}
	return shown
}

var expressionForm = regexp.MustCompile(`^request\.time < timestamp\("([^"]+)"\)$`)

func (s *Server) setPolicy(x *exchange) (any, error) {
	p, err := s.existing(x, "setIamPolicy")
	if err != nil {
		return nil, err
	}
	var q struct {
		Policy struct {
			Version  int       `json:"version"`
			Etag     []byte    `json:"etag"`
			Bindings []Binding `json:"bindings"`
		} `json:"policy"`
	}
	if err := json.Unmarshal(x.body, &q); err != nil {
		return nil, err
	}
	if len(q.Policy.Etag) == 0 {
		s.wrong = append(s.wrong, x.id+": a policy is written over whatever is there")
	} else if string(q.Policy.Etag) != string(p.etag()) {
		return nil, fail(http.StatusConflict, "ABORTED", "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.")
	}
	members := 0
	for _, b := range q.Policy.Bindings {
		if err := s.checkBinding(b, q.Policy.Version); err != nil {
			return nil, err
		}
		members += len(b.Members)
	}
	if members > maxMembers {
		return nil, fail(http.StatusBadRequest, "INVALID_ARGUMENT", "The number of members in the policy (%d) is larger than the maximum allowed size 1500.", members)
	}
	p.bindings = normalised(q.Policy.Bindings)
	p.generation++
	return s.shownPolicy(x, p), nil
}

func (s *Server) checkBinding(b Binding, version int) error {
	invalid := func(format string, args ...any) error {
		return fail(http.StatusBadRequest, "INVALID_ARGUMENT", format, args...)
	}
	if s.roles[b.Role] == nil {
		return invalid("Role %s is not supported for this resource.", b.Role)
	}
	if b.Condition != nil {
		end := expressionForm.FindStringSubmatch(b.Condition.Expression)
		if end == nil || b.Condition.Title == "" {
			return invalid("Compilation of the condition expression failed.")
		}
		if _, err := time.Parse(time.RFC3339, end[1]); err != nil {
			return invalid("Compilation of the condition expression failed: %v", err)
		}
		if version != 3 {
			return invalid("Policy version 3 is needed for conditions.")
		}
	}
	for _, m := range b.Members {
		email, account := strings.CutPrefix(m, "serviceAccount:")
		if a := s.accounts[email]; account && (a == nil || a.deleted() || !a.known(s.now())) {
			return invalid("Service account %s does not exist.", email)
		}
	}
	return nil
}

func (s *Server) testPermissions(x *exchange) (any, error) {
	var q struct {
		Permissions []string `json:"permissions"`
	}
	if err := json.Unmarshal(x.body, &q); err != nil {
		return nil, err
	}
	name := x.parameters["resource"]
	if _, email, account := strings.Cut(name, "/serviceAccounts/"); account {
		if a := s.accounts[email]; a == nil || !a.known(s.now()) {
			return nil, fail(http.StatusNotFound, "NOT_FOUND", "Service account %s does not exist.", email)
		}
	} else if s.policies[name] == nil {
		return nil, fail(http.StatusNotFound, "NOT_FOUND", "%s does not exist.", name)
	}
	var has []string
	for _, p := range q.Permissions {
		if s.permit(x, name, p) == nil {
			has = append(has, p)
		}
	}
	if has == nil {
		return map[string]any{}, nil
	}
	return map[string]any{"permissions": has}, nil
}

// permit refuses who has not the permission on a resource, or on what it is in.
func (s *Server) permit(x *exchange, resource, permission string) error {
	for name := range maps.Keys(s.policies) {
		if name != resource && !strings.HasPrefix(resource, name+"/") {
			continue
		}
		for _, b := range s.policies[name].bindings {
			if slices.Contains(b.Members, x.as) && slices.Contains(s.roles[b.Role], permission) && s.holds(b.Condition) {
				return nil
			}
		}
	}
	return fail(http.StatusForbidden, "PERMISSION_DENIED", "Permission '%s' denied on resource '%s' (or it may not exist).", permission, resource)
}

func (s *Server) holds(c *Condition) bool {
	if c == nil {
		return true
	}
	end, err := time.Parse(time.RFC3339, expressionForm.FindStringSubmatch(c.Expression)[1])
	return err == nil && s.now().Before(end)
}

// RoleOf reads the permissions of the custom role in a guide.
func RoleOf(guide string) (permissions []string) {
	_, block, _ := strings.Cut(guide, "includedPermissions:\n")
	block, _, _ = strings.Cut(block, "```")
	for line := range strings.Lines(block) {
		permissions = append(permissions, strings.TrimPrefix(strings.TrimSpace(line), "- "))
	}
	return permissions
}
