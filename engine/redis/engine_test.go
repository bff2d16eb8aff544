package redis_test

import (
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/redis"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/redistest"
)

// TestRevokedStaysDead: what was ended is not in the file that Redis starts from
// after kill -9, and what was issued is.
func TestRevokedStaysDead(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		for form, s := range map[string]*source{
			"aclfile":    newSource(t, redistest.Start(t, kind)),
			"configfile": newSource(t, redistest.Start(t, kind, redistest.WithoutACLFile()), "+config|rewrite"),
		} {
			e, server := s.open(t, nil), s.servers[0]
			ended, kept, by := issue(t, e), issue(t, e), issue(t, e)
			revoke(t, e, ended.recipe)
			server.Do(t, "ACL", "DELUSER", by.username) // by hand, and not saved
			revoke(t, e, by.recipe)
			server.Kill(t)
			server.Run(t)
			dead(t, server, ended)
			dead(t, server, by)
			works(t, server, kept)
			if e.SourceID() != s.open(t, nil).SourceID() {
				t.Errorf("%s %s: the source has another identity after a restart", kind, form)
			}
			revoke(t, e, kept.recipe)
			dead(t, server, kept)
		}
	}
}

// TestRebuiltServer: at an address where an empty server answers, nothing counts
// as dead.
func TestRebuiltServer(t *testing.T) {
	t.Parallel()
	first := newSource(t, redistest.Start(t, redistest.Redis))
	e := first.open(t, nil)
	c := issue(t, e)
	server := first.servers[0]
	for _, name := range server.Users(t) {
		if name != "default" {
			server.Do(t, "ACL", "DELUSER", name)
		}
	}
	server.SetUp(t)
	server.Kill(t)
	server.Run(t)
	if _, err := e.Revoke(t.Context(), c.recipe); engine.KindOf(err) != engine.WrongServer {
		t.Errorf("revoke on a server that was set up anew: %v", err)
	}
	if h := e.Check(t.Context()); h.Status != "misconfigured" || !strings.Contains(h.Error, "not the server") {
		t.Errorf("health: %+v", h)
	}
	again := first.open(t, nil)
	if _, err := again.Revoke(t.Context(), c.recipe); engine.KindOf(err) != engine.WrongServer {
		t.Errorf("revoke by an engine that was opened on the other server: %v", err)
	}
	o := first.options(nil)
	o.Accepted = []string{e.SourceID()}
	revoke(t, open(t, o), c.recipe)
}

// TestOpenRefuses: what cannot work is said with what to do, when the engine is
// made.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	plain := func(s *redistest.Server) *source {
		return &source{servers: []*redistest.Server{s}, url: "redis://{{username}}:{{password}}@" + s.Addr(), namer: enginetest.NewNamer()}
	}
	for _, kind := range redistest.Kinds() {
		good := newSource(t, redistest.Start(t, kind))
		managed := plain(redistest.Start(t, kind, redistest.WithoutACLFile(), redistest.WithLines(`rename-command ACL ""`)))
		unsaved := newSource(t, redistest.Start(t, kind, redistest.WithoutACLFile()), "+config|rewrite")
		unsaved.servers[0].Do(t, "ACL", "SETUSER", rootName, "-config|rewrite")
		superuser := map[string]statement.Secret{"username": "default", "password": statement.Secret(good.servers[0].Password())}
		for name, c := range map[string]struct {
			s      *source
			root   map[string]statement.Secret
			config map[string]any
			says   string
		}{
			"wrong password":  {good, map[string]statement.Secret{"username": rootName, "password": "wrong"}, nil, "root credentials"},
			"no ACL commands": {managed, superuser, nil, "no ACL commands"},
			"nowhere to save": {unsaved, nil, nil, "set aclfile"},
			"all nodes gone":  {good, nil, map[string]any{"gone_nodes": []string{good.servers[0].Addr()}}, "gone_nodes"},
		} {
			o := c.s.options(c.config)
			if c.root != nil {
				o.Root = c.root
			}
			e, err := redis.Type{}.Open(t.Context(), o)
			if err == nil {
				e.Close()
			}
			if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
}

// TestTLS: the certificate is verified, and shown in health.
func TestTLS(t *testing.T) {
	t.Parallel()
	clear := newSource(t, redistest.Start(t, redistest.Redis))
	clear.url = strings.Replace(clear.url, "redis:", "rediss:", 1)
	if _, err := (redis.Type{}).Open(t.Context(), clear.options(map[string]any{"connect_timeout": "1s"})); engine.KindOf(err) != engine.Unreachable || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("a server without TLS: %v", err)
	}
	for _, kind := range redistest.Kinds() {
		server := redistest.Start(t, kind, redistest.WithTLS())
		s := newSource(t, server)
		s.url = strings.Replace(s.url, "redis:", "rediss:", 1)
		s.secrets = map[string]map[string]statement.Secret{"infra/ca": {"certificate": statement.Secret(server.CA())}}
		e := s.open(t, map[string]any{"tls_ca_path": "infra/ca"})
		if h := e.Check(t.Context()); h.Status != "healthy" || h.TLS != "verified" {
			t.Errorf("%s: health: %+v", kind, h)
		}
		c := issue(t, e)
		works(t, server, c)
		revoke(t, e, c.recipe)
		dead(t, server, c)
		if _, err := (redis.Type{}).Open(t.Context(), s.options(nil)); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: a server of an unknown authority: %v", kind, err)
		}
	}
}

// TestMissingRights: health names each right that root lacks, and with the rule
// it names root is healthy again.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		s := newSource(t, redistest.Start(t, kind))
		e, server := s.open(t, nil), s.servers[0]
		if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
			t.Errorf("%s: health of the guide's root: %+v", kind, h)
		} else if h.ClockOffset == 0 || h.ClockOffset.Abs() > time.Minute {
			t.Errorf("%s: the clock of a server on this machine is off by %s", kind, h.ClockOffset)
		}
		for _, right := range []string{"acl|setuser", "acl|getuser", "acl|deluser", "acl|list", "acl|save", "client|setname", "client|list", "client|kill", "info"} {
			server.Do(t, "ACL", "SETUSER", rootName, "-"+right)
			h := e.Check(t.Context())
			if h.Status != "misconfigured" || !strings.Contains(strings.Join(h.MissingGrants, "\n")+h.Error, right) {
				t.Errorf("%s: health without %s: %+v", kind, right, h)
			}
			server.Do(t, "ACL", "SETUSER", rootName, "+"+right)
		}
		for _, right := range []string{"set", "watch"} {
			server.Do(t, "ACL", "SETUSER", rootName, "-"+right)
			if h := e.Check(t.Context()); h.Status != "healthy" || len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "+"+right) {
				t.Errorf("%s: health without %s: %+v", kind, right, h)
			}
			c := issue(t, e)
			works(t, server, c)
			revoke(t, e, c.recipe)
			server.Do(t, "ACL", "SETUSER", rootName, "+"+right)
		}
		if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
			t.Errorf("%s: health at the end: %+v", kind, h)
		}
		server.Do(t, "ACL", "SETUSER", rootName, "+@all")
		if h := e.Check(t.Context()); len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "everything") {
			t.Errorf("%s: health of a superuser: %+v", kind, h)
		}
	}
}

// TestRootRotationCutOff: between the two halves of a rotation both passwords
// work; whoever goes on from there ends with the candidate alone.
func TestRootRotationCutOff(t *testing.T) {
	t.Parallel()
	s := newSource(t, redistest.Start(t, redistest.Redis))
	e, server := s.open(t, nil), s.servers[0]
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server.Do(t, "ACL", "SETUSER", rootName, ">"+candidate["password"].Reveal()) // and then the crash
	for _, root := range []map[string]statement.Secret{s.options(nil).Root, candidate} {
		o := s.options(nil)
		o.Root = root
		open(t, o)
	}
	if err := e.SetRoot(t.Context(), candidate); err != nil {
		t.Fatal(err)
	}
	if _, err := (redis.Type{}).Open(t.Context(), s.options(nil)); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("the former password is still taken: %v", err)
	}
	server.Kill(t)
	server.Run(t)
	o := s.options(nil)
	o.Root = candidate
	revoke(t, open(t, o), issue(t, e).recipe)
}
