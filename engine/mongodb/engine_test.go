package mongodb_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/mongodb"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mongotest"
)

// TestMissingRights: health names each right that the guide's root would lack, with what grants it.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
		t.Errorf("health of the guide's root: %+v", h)
	} else if h.ClockOffset.Abs() > time.Minute {
		t.Errorf("the clock of a server on this machine is off by %s", h.ClockOffset)
	}
	s.works(t, issue(t, e, readApp)) // from now on users are known to be in app
	role := mongotest.Guide(t)[0]
	privileges, _ := role[1].Value.(bson.A)
	for i, p := range privileges {
		actions, _ := p.(bson.D)[1].Value.(bson.A)
		for k, action := range actions {
			s.grantRoot(t, without(privileges, i, k))
			h := e.Check(t.Context())
			said, status := h.MissingGrants, "misconfigured"
			if action == "changeOwnPassword" || action == "viewUser" && i == 0 { // credentials are made and ended all the same
				said, status = h.Warnings, "healthy"
			}
			if h.Status != status || !strings.Contains(strings.Join(said, "\n"), action.(string)) {
				t.Errorf("health without %s: %+v", action, h)
			}
		}
	}
	s.grantRoot(t, privileges)
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
		t.Errorf("health at the end: %+v", h)
	}
	s.server.Do(t, "admin", bson.D{{Key: "grantRolesToUser", Value: s.root}, {Key: "roles", Value: bson.A{"root"}}})
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "everything") {
		t.Errorf("health of a superuser: %+v", h)
	}
}

// without is a copy of privileges that lacks one action of one of them.
func without(privileges bson.A, i, k int) bson.A {
	all := bson.A{}
	for n, p := range privileges {
		d, _ := p.(bson.D)
		actions, _ := d[1].Value.(bson.A)
		kept := bson.A{}
		for m, action := range actions {
			if n != i || m != k {
				kept = append(kept, action)
			}
		}
		if len(kept) > 0 {
			all = append(all, bson.D{d[0], {Key: "actions", Value: kept}})
		}
	}
	return all
}

func (s *source) grantRoot(t *testing.T, privileges bson.A) {
	t.Helper()
	s.server.Do(t, "admin", bson.D{{Key: "updateRole", Value: s.root}, {Key: "privileges", Value: privileges}})
}

// TestListOfOneDatabase: where root may not see the users of all databases, those of the databases in
// use are listed.
func TestListOfOneDatabase(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	c := issue(t, e, readApp)
	privileges, _ := mongotest.Guide(t)[0][1].Value.(bson.A)
	s.grantRoot(t, without(privileges, 0, 3))
	accounts, err := e.List(t.Context())
	if err != nil || len(accounts) != 1 || accounts[0].Username != c.name {
		t.Errorf("%v, %v", accounts, err)
	}
}

// TestOpenRefuses: what cannot work is said with what to do, when the engine is made.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.server.Do(t, "admin", bson.D{{Key: "createUser", Value: "powerless"}, {Key: "pwd", Value: rootPassword}, {Key: "roles", Value: bson.A{}}})
	t.Cleanup(func() { s.server.Do(t, "admin", bson.D{{Key: "dropUser", Value: "powerless"}}) })
	login := func(user, password string) map[string]statement.Secret {
		return map[string]statement.Secret{"username": statement.Secret(user), "password": statement.Secret(password)}
	}
	for name, c := range map[string]struct {
		root   map[string]statement.Secret
		config map[string]any
		says   string
	}{
		"wrong password":   {login(s.root, "wrong"), nil, "root credentials"},
		"another database": {nil, map[string]any{"connection_url": s.url + "app"}, "root credentials"},
		"no rights":        {login("powerless", rootPassword), nil, "lacks a right"},
		"no password":      {login(s.root, ""), nil, "password"},
	} {
		o := s.options(c.config)
		if c.root != nil {
			o.Root = c.root
		}
		e, err := mongodb.Type{}.Open(t.Context(), o)
		if err == nil {
			e.Close()
		}
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnsuited: what cannot be a source is told by what it says of itself.
func TestUnsuited(t *testing.T) {
	t.Parallel()
	old := &source{server: mongotest.Start(t, mongotest.Saying(bson.D{{Key: "maxWireVersion", Value: int32(8)}})), root: guideRoot, namer: enginetest.NewNamer()}
	old.url = "mongodb://{{username}}:{{password}}@" + old.server.Addr()
	for says, s := range map[string]*source{"Atlas": newSource(t, mongotest.AsAtlas()), "MongoDB 4.4 is the first": old} {
		e, err := mongodb.Type{}.Open(t.Context(), s.options(nil))
		if err == nil {
			e.Close()
		}
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// TestRebuiltServer: at an address where an empty server answers, nothing counts as dead.
func TestRebuiltServer(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	c := issue(t, e, readApp)
	s.server.Do(t, appDB, bson.D{{Key: "dropUser", Value: c.name}})
	s.server.Do(t, "admin", bson.D{{Key: "dropRole", Value: e.SourceID()}})
	if _, err := e.Revoke(t.Context(), c.recipe); engine.KindOf(err) != engine.WrongServer {
		t.Errorf("revoke on a server that was set up anew: %v", err)
	}
	if _, err := e.Issue(t.Context(), plan(t, e, readApp)); engine.KindOf(err) != engine.WrongServer {
		t.Errorf("issue on a server that was set up anew: %v", err)
	}
	if h := e.Check(t.Context()); h.Status != "misconfigured" || !strings.Contains(h.Error, "not the source") {
		t.Errorf("health: %+v", h)
	}
	again := s.open(t, nil)
	if _, err := again.Revoke(t.Context(), c.recipe); engine.KindOf(err) != engine.WrongServer {
		t.Errorf("revoke by an engine that was opened on the other server: %v", err)
	}
	o := s.options(nil)
	o.Accepted = []string{e.SourceID()}
	revoke(t, open(t, o), c.recipe)
}

// TestSourceID: one server is told the same by all engines over it, and by none after a restart
// otherwise.
func TestSourceID(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	first := s.open(t, nil).SourceID()
	if again := s.open(t, nil).SourceID(); first == "" || again != first {
		t.Errorf("%s, then %s", first, again)
	}
}

// TestTLS: the server's certificate is verified, ours is shown, and health says so.
func TestTLS(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]mongotest.Option{"server": mongotest.WithTLS(), "client": mongotest.WithClientCertificates()} {
		s := newSource(t, opt)
		s.url += "?tls=true"
		s.secrets = map[string]map[string]statement.Secret{
			"infra/ca":     {"certificate": statement.Secret(s.server.CA())},
			"infra/client": {"certificate": statement.Secret(s.server.CA()), "private_key": statement.Secret(s.server.Key())},
		}
		certified := map[string]any{"tls_ca_path": "infra/ca"}
		if name == "client" {
			if _, err := (mongodb.Type{}).Open(t.Context(), s.options(map[string]any{"tls_ca_path": "infra/ca", "connect_timeout": "2s", "operation_timeout": "4s"})); err == nil {
				t.Error("without the certificate that the server wants")
			}
			certified["tls_cert_path"] = "infra/client"
		}
		e := s.open(t, certified)
		if h := e.Check(t.Context()); h.Status != "healthy" || h.TLS != "verified" {
			t.Errorf("%s: health: %+v", name, h)
		}
		c := issue(t, e, readApp)
		revoke(t, e, c.recipe)
		eventually(t, "the certificate of an unknown authority is named", func() bool {
			_, err := mongodb.Type{}.Open(t.Context(), s.options(map[string]any{"connect_timeout": "2s", "operation_timeout": "4s"}))
			if err == nil {
				t.Fatal("an unknown authority is trusted")
			}
			return engine.KindOf(err) == engine.Misconfigured && strings.Contains(err.Error(), "certificate")
		})
	}
}

// TestRootRotationCutOff: whoever goes on after a crash finds that the candidate works, and uses it.
func TestRootRotationCutOff(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	c := issue(t, e, readApp)
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.server.Do(t, "admin", bson.D{{Key: "updateUser", Value: s.root}, {Key: "pwd", Value: candidate["password"].Reveal()}}) // and then the crash
	if _, err := (mongodb.Type{}).Open(t.Context(), s.options(nil)); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("the former password is still taken: %v", err)
	}
	if err := e.SetRoot(t.Context(), candidate); err != nil {
		t.Fatal(err)
	}
	revoke(t, e, c.recipe)
	s.dead(t, c)
	other := map[string]statement.Secret{"username": "somebody-else", "password": "x"}
	if err := e.SetRoot(t.Context(), other); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("another user: %v", err)
	}
}

// TestRecipe: what a lease keeps can be read by the releases to come.
func TestRecipe(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	p := plan(t, e, readApp)
	var fields map[string]string
	if err := json.Unmarshal(p.Recipe, &fields); err != nil {
		t.Fatal(err)
	}
	if fields["source"] != e.SourceID() || fields["username"] != p.Username || fields["database"] != appDB || fields["lease_id"] != p.LeaseID || fields["fence"] == "" || len(fields) != 5 {
		t.Errorf("%s", p.Recipe)
	}
}
