package failpoints_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/gcptest"
)

// TestCrashMatrixGCP kills the server at every point that is reached with Google Cloud, for every kind of
// credential. The short form is of the key of an account of its own, the longest way there is, and of what
// each other kind has that this one has not.
func TestCrashMatrixGCP(t *testing.T) {
	t.Parallel()
	const key, token = "service_account_key", "access_token"
	var variants []variant
	for _, k := range []gcpKind{
		{name: "key of its own account", form: client.Document{"credential_type": key}, own: true, uploaded: true, short: []failpoint.Point{
			failpoint.F3, failpoint.F4, failpoint.F5, failpoint.F6, failpoint.Disabled, failpoint.Emptied, failpoint.R2, failpoint.RootSent, failpoint.RootSet, failpoint.RootProved}},
		{name: "Google's key of its own account", form: client.Document{"credential_type": key, "key_origin": "google"}, own: true, short: []failpoint.Point{failpoint.F5}},
		{name: "token of its own account", form: client.Document{"credential_type": token, "max_ttl": "1h"}, own: true, token: true},
		{name: "key of an account", form: client.Document{"credential_type": key}, uploaded: true, lasting: true, short: []failpoint.Point{failpoint.F5, failpoint.R2}},
		{name: "token of an account", form: client.Document{"credential_type": token, "max_ttl": "1h"}, token: true, lasting: true},
	} {
		variants = append(variants, variant{name: k.name, scenarios: k.scenarios(), short: k.short, target: k.target})
	}
	// A lease of a token closes at the token's end, which a test can wait for if it is near.
	minute := gcpKind{form: client.Document{"credential_type": token, "default_ttl": "1m", "max_ttl": "1m"}, token: true}
	variants = append(variants, variant{name: "token for a minute", scenarios: of(minute.scenarios(), failpoint.R4), target: minute.target})
	const fixed = "the end of a certificate, a token or a condition cannot be moved, so nothing is renewed"
	playAll(t, variants, map[failpoint.Point]string{failpoint.N1: fixed, failpoint.N2: fixed, failpoint.N3: fixed})
}

// gcpKind is a kind of credential.
type gcpKind struct {
	name     string
	form     client.Document
	own      bool // of an account that is made for it, with a binding; else of one that exists
	token    bool
	uploaded bool // a key that is known by its public half, also when no answer came
	lasting  bool // what somebody got with it goes on for longer than a test
	short    []failpoint.Point
}

// scenarios are the points that are reached with the kind. Left out are renewals, which there are not;
// F3, disabled and emptied where no account is made and taken away; R2 where nothing is, since a token can only
// end; and R4 where the lease closes an hour later.
func (k gcpKind) scenarios() (all []scenario) {
	for _, s := range append(everywhere(), scenario{point: failpoint.Emptied, reach: revoking, found: closed, ends: true}) {
		switch s.point {
		case failpoint.N1, failpoint.N2, failpoint.N3:
			continue
		case failpoint.F3, failpoint.Disabled, failpoint.Emptied:
			if !k.own {
				continue
			}
		case failpoint.R2:
			if !k.own && k.token {
				continue
			}
		case failpoint.R4:
			if k.lasting {
				continue
			}
			s.reach = revokingBehindTheAnswer
		}
		switch s.point {
		case failpoint.F3, failpoint.F4: // key and token come behind them
			s.found = absent
		case failpoint.F5, failpoint.F6, failpoint.Found: // what was in one answer alone is nobody's
			s.found = absent
			if k.uploaded {
				s.found = unconfirmed
			}
		}
		if s.ends && k.lasting {
			s.found = promised
		}
		all = append(all, s)
	}
	return all
}

// revokingBehindTheAnswer is revoking where the source is dead a moment later: the lease is closed, and the
// server dies, when the request has been answered.
func revokingBehindTheAnswer(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	node := w.first()
	node.Arm(t, arm)
	if l, err := node.Admin(t).RevokeLease(t.Context(), subject.LeaseID, patience); err != nil || l == nil || l.Revocation.EffectiveAt == nil {
		t.Fatalf("revoke: %+v, %v", l, err)
	}
	node.AwaitDeath(t)
	node.Arm(t)
}

// promised wants the lease to be told dead from a moment that is still to come, as it was asked.
func promised(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	if made := w.made(leases); len(made) != 0 {
		t.Errorf("there is another lease: %+v", made)
	}
	l := leaseOf(leases, subject)
	if l == nil {
		t.Errorf("lease %s is lost", subject.LeaseID)
		return "lost"
	}
	if l.Status != api.LeaseRevoking || !asked(l) || l.Revocation.EffectiveAt == nil || !l.Revocation.EffectiveAt.After(time.Now()) {
		t.Errorf("the lease is %s, %+v; it should be revoking until a moment that is known, as it was asked", l.Status, l.Revocation)
		return string(l.Status)
	}
	return "nothing there, lease revoking until it is dead"
}

// What every cloud here has.
const (
	gcpProject = "projects/" + gcptest.Project
	gcpReader  = "roles/app.reader"
	gcpMay     = "app.items.get"
	// gcpPropagation is how long after a revocation an account of its own is told dead.
	gcpPropagation = time.Second
)

// target starts a server with the root of the guide, and an account of somebody's with a key and a binding.
// When a test has ended all that is left is what was there before.
func (k gcpKind) target(t *testing.T, role string) target {
	t.Helper()
	source := gcptest.StartPlain(t)
	root, app := source.AddAccount("scaivault-root"), source.AddAccount("app-reader")
	guide, err := os.ReadFile("../../docs/engines/gcp.md")
	if err != nil {
		t.Fatal(err)
	}
	source.DefineRole("roles/scaivault", gcptest.RoleOf(string(guide))...)
	source.DefineRole(gcpReader, gcpMay)
	source.AddResource(gcpProject)
	source.Grant(gcpProject, "roles/scaivault", "serviceAccount:"+root.Email)
	source.Grant(gcpProject, gcpReader, "serviceAccount:"+app.Email)
	source.AddKey(app.Email)
	credentials := string(source.AddKey(root.Email))
	endpoints := map[string]string{}
	for _, name := range []string{"iam", "iamcredentials", "cloudresourcemanager", "oauth2"} {
		endpoints[name] = source.URL()
	}
	form := maps.Clone(k.form)
	if k.own {
		form["bindings"] = []map[string]any{{"resource": gcpProject, "roles": []string{gcpReader}}}
	} else {
		form["service_account_email"] = app.Email
	}
	before := gcpLeft(source, root)
	t.Cleanup(func() {
		if now := gcpLeft(source, root); now != before {
			t.Errorf("left is %s, and there was %s", now, before)
		}
	})
	cloud := target{
		engine:  "gcp",
		config:  client.Document{"project": gcptest.Project, "endpoints": endpoints, "iam_propagation": gcpPropagation.String()},
		form:    form,
		root:    map[string]string{"credentials": credentials},
		lasting: k.lasting,
		login:   func(t *testing.T, data map[string]string) error { return gcpLogin(t, source, data) },
		ended: func(t *testing.T, l api.Lease, data map[string]string) {
			t.Helper()
			k.judge(t, source, l, data)
		},
	}
	if k.own || !k.token { // at the source is nothing that has the name of a token
		cloud.users = func(t *testing.T) []string { return k.credentials(t, source, role) }
	}
	return cloud
}

// gcpLogin uses what a caller was given.
func gcpLogin(t *testing.T, source *gcptest.Server, data map[string]string) error {
	t.Helper()
	h, err := source.LogIn(t.Context(), data["access_token"], data["private_key_data"])
	if err != nil {
		return err
	}
	if ok, err := h.May(t.Context(), gcpProject, gcpMay); err != nil || !ok {
		return errors.Join(errors.New("the account may not read"), err)
	}
	return nil
}

// judge compares what becomes of a revoked credential with what its lease says.
//
//   - An account of its own is gone at once, and told dead when all of Google knows, never before.
//   - So is a key of another account; what was got with it lives on for an hour, from when it was
//     seen to be gone.
//   - A token of another account is taken until the end that it was made with, and no longer.
func (k gcpKind) judge(t *testing.T, source *gcptest.Server, l api.Lease, data map[string]string) {
	t.Helper()
	err, at := gcpLogin(t, source, data), l.Revocation.EffectiveAt
	if goesOn := k.token && k.lasting; goesOn != (err == nil) {
		t.Errorf("what was revoked is accepted: %t (%v); it should be: %t", err == nil, err, goesOn)
	}
	switch asked := l.Revocation.RequestedAt; {
	case k.own:
		if l.RevokedAt == nil || l.RevokedAt.Sub(asked) < gcpPropagation {
			t.Errorf("it was asked to die at %s, and is told dead at %v", asked, l.RevokedAt)
		}
	case !k.token:
		if at == nil || at.Before(asked.Add(time.Hour)) || at.After(time.Now().Add(time.Hour)) {
			t.Errorf("it was asked to die at %s, and is promised to be dead at %v, not an hour later", asked, at)
		}
	default:
		if ends := source.TokenEnds(data["access_token"]); at == nil || !at.Equal(ends) || l.RevokedAt != nil && l.RevokedAt.Before(ends) {
			t.Errorf("it is promised to be dead at %v, and told so at %v; the source ends it at %s", at, l.RevokedAt, ends)
		}
	}
}

// credentials are the names of all that the source has of a role: of its accounts, of those that a policy names, and
// those in certificates. One that is there is whole.
func (k gcpKind) credentials(t *testing.T, source *gcptest.Server, role string) []string {
	t.Helper()
	var accounts, bound, keyed []string
	for _, a := range source.Accounts() {
		own, _, _ := strings.Cut(a.Email, "@")
		if !strings.HasPrefix(own, "v-"+role+"-") {
			own = ""
		} else {
			accounts = append(accounts, own)
		}
		for _, id := range a.Keys {
			name := own // also of a key that Google made
			if cert := source.Certificate(a.Email, id); cert != nil {
				name = cert.Subject.CommonName
			}
			if strings.HasPrefix(name, "v-"+role+"-") || strings.HasPrefix(name, "v_"+role+"_") {
				keyed = append(keyed, name)
			}
		}
	}
	for _, m := range source.Members()[gcpProject] {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(m, "deleted:"), "serviceAccount:"), "@")
		if strings.HasPrefix(name, "v-"+role+"-") {
			bound = append(bound, name)
		}
	}
	slices.Sort(bound)
	slices.Sort(keyed)
	var whole bool
	switch {
	case !k.own:
		whole = len(accounts)+len(bound) == 0
	case k.token:
		whole = slices.Equal(accounts, bound) && len(keyed) == 0
	default:
		whole = slices.Equal(accounts, bound) && slices.Equal(accounts, keyed)
	}
	if !whole {
		t.Errorf("there are the accounts %v, bound are %v, and keys have %v", accounts, bound, keyed)
	}
	return slices.Concat(accounts, bound, keyed)
}

// gcpLeft is all that there is, but which key the root has: rotations change it.
func gcpLeft(source *gcptest.Server, root gcptest.Account) string {
	var all strings.Builder
	for _, a := range source.Accounts() {
		if a.Email == root.Email {
			fmt.Fprintf(&all, "%s with %d keys; ", a.Email, len(a.Keys))
		} else {
			fmt.Fprintf(&all, "%s %v; ", a.Email, a.Keys)
		}
	}
	members := source.Members()[gcpProject]
	slices.Sort(members)
	return all.String() + strings.Join(members, " ")
}
