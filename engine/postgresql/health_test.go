package postgresql_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestHealthNamesWhatRootLacks: each text holds the statement, which mends it.
func TestHealthNamesWhatRootLacks(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	s := newSource(t, server, createRole)
	e := s.open(t, nil)
	for _, damage := range []string{"NOCREATEROLE", "NOINHERIT"} {
		server.Exec(t, "ALTER ROLE "+s.root+" "+damage)
		want := fmt.Sprintf(`ALTER ROLE "%s" %s`, s.root, strings.TrimPrefix(damage, "NO"))
		h := e.Check(t.Context())
		if h.Status != "misconfigured" || len(h.MissingGrants) != 1 || !strings.Contains(h.MissingGrants[0], want) {
			t.Errorf("%s: %+v", damage, h)
		}
		server.Exec(t, want)
	}
	server.Exec(t, "REVOKE pg_signal_backend FROM "+s.root)
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "GRANT pg_signal_backend TO") {
		t.Errorf("without pg_signal_backend: %+v", h)
	}
	server.Exec(t, "ALTER ROLE "+s.root+" SUPERUSER")
	if h := e.Check(t.Context()); len(h.Warnings) == 0 || !strings.Contains(h.Warnings[0], "superuser") {
		t.Errorf("a superuser as root: %+v", h)
	}
}

// TestHealthWarnsOfGrowingCost: on 16 and later a CREATEROLE root pays for each
// of its live roles. The functions, installed, end it.
func TestHealthWarnsOfGrowingCost(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 18), createRole)
	e := s.open(t, nil)
	s.server.Exec(t, fmt.Sprintf("SET ROLE %s; DO $$ BEGIN FOR i IN 1..1000 LOOP EXECUTE 'CREATE ROLE v_cost_' || i; END LOOP; END $$", s.root))
	t.Cleanup(func() {
		s.server.Exec(t, "DO $$ BEGIN FOR i IN 1..1000 LOOP EXECUTE 'DROP ROLE v_cost_' || i; END LOOP; END $$")
	})
	h := e.Check(t.Context())
	if h.Status != "healthy" || len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "1000 live roles") || !strings.Contains(h.Warnings[0], "setup-sql") {
		t.Errorf("health: %+v", h)
	}
	setup, err := postgresql.SetupSQL(postgresql.Setup{Root: s.root, Database: s.db})
	if err != nil {
		t.Fatal(err)
	}
	s.server.ExecIn(t, s.db, setup)
	if h := e.Check(t.Context()); len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "save the engine once more") {
		t.Errorf("health of the engine of before: %+v", h)
	}
	if h := s.open(t, nil).Check(t.Context()); h.Status != "healthy" || len(h.Warnings) != 0 {
		t.Errorf("health with the functions: %+v", h)
	}
}

// TestMovingToFunctions: credentials of before the functions were installed
// are still ended, in the way in which they were made.
func TestMovingToFunctions(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 17), createRole)
	before := issue(t, s.open(t, nil), parseRole(t, readItems))
	setup, err := postgresql.SetupSQL(postgresql.Setup{Root: s.root, Database: s.db})
	if err != nil {
		t.Fatal(err)
	}
	s.server.ExecIn(t, s.db, setup)
	s.server.Exec(t, "ALTER ROLE "+s.root+" CREATEROLE") // until they have ended
	e := s.open(t, nil)
	after := issue(t, e, parseRole(t, readItems))
	for i, r := range e.RevokeBatch(t.Context(), []engine.Recipe{before.recipe, after.recipe}) {
		if r.Err != nil || r.Residue != "" {
			t.Errorf("%d: %v %s", i, r.Err, r.Residue)
		}
	}
	if s.roles(t, before.username)+s.roles(t, after.username) != 0 {
		t.Error("an account lives")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, 15, pgtest.WithHBA("host all md5_root all md5", "host all clear_root all password", "host all trusted_root all trust"))
	s := newSource(t, server, createRole)
	for _, name := range []string{"md5_root", "clear_root", "trusted_root"} {
		server.Exec(t, "SET password_encryption = 'md5'; CREATE ROLE "+name+" LOGIN CREATEROLE PASSWORD 'secret-of-root'")
	}
	for name, change := range map[string]func(*engine.Options){
		"wrong password":        func(o *engine.Options) { o.Root["password"] = "wrong-secret" },
		"no such root":          func(o *engine.Options) { o.Root["username"] = "nobody" },
		"no password in secret": func(o *engine.Options) { delete(o.Root, "password") },
		"no such database": func(o *engine.Options) {
			o.Config = s.config(map[string]any{"connection_url": "postgresql://{{username}}:{{password}}@" + s.addr + "/nowhere?sslmode=disable"})
		},
		"TLS where there is none": func(o *engine.Options) {
			o.Config = s.config(map[string]any{"connection_url": "postgresql://{{username}}:{{password}}@" + s.addr + "/" + s.db + "?sslmode=require"})
		},
		"md5, unverified":         func(o *engine.Options) { o.Root["username"], o.Root["password"] = "md5_root", "secret-of-root" },
		"clear text, unverified":  func(o *engine.Options) { o.Root["username"], o.Root["password"] = "clear_root", "secret-of-root" },
		"no question, unverified": func(o *engine.Options) { o.Root["username"], o.Root["password"] = "trusted_root", "secret-of-root" },
	} {
		o := s.options(nil)
		change(&o)
		_, err := postgresql.Type{}.Open(t.Context(), o)
		wantKind(t, err, engine.Misconfigured)
		for _, secret := range []string{s.password, "wrong-secret", "secret-of-root"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows a password", name)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, 15, pgtest.WithTLS())
	plain := pgtest.Shared(t, 15)
	s, inClear := newSource(t, server, createRole), newSource(t, plain, createRole)
	url := func(host, mode string) map[string]any {
		u := "postgresql://{{username}}:{{password}}@" + host + fmt.Sprintf(":%d/%s", server.Port, s.db)
		if mode != "" {
			u += "?sslmode=" + mode
		}
		return map[string]any{"connection_url": u}
	}
	ca := func(extra map[string]any) map[string]any {
		extra["tls_ca_path"] = "infra/ca"
		return extra
	}
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{url("127.0.0.1", "disable"), "none"},
		{url("127.0.0.1", ""), "unverified"},
		{url("127.0.0.1", "require"), "unverified"},
		{ca(url("127.0.0.1", "")), "verified"},
		{ca(url("localhost", "verify-full")), "verified"},
		{ca(url("db.example", "verify-ca")), "verified"},
		{ca(url("db.example", "verify-full")), "refused"}, // not in the certificate
		{url("127.0.0.1", "verify-full"), "refused"},      // signed by nobody known
		{url("127.0.0.1", "verify-ca"), "refused"},
	} {
		o := s.options(c.config)
		o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server.Addr())
		}
		o.Secret = func(context.Context, string) (map[string]statement.Secret, error) {
			return map[string]statement.Secret{"certificate": statement.Secret(server.CA())}, nil
		}
		e, err := postgresql.Type{}.Open(t.Context(), o)
		if c.want == "refused" {
			wantKind(t, err, engine.Misconfigured)
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.config, err)
			continue
		}
		if h := e.Check(t.Context()); h.TLS != c.want || h.Status != "healthy" {
			t.Errorf("%v: %+v", c.config, h)
		}
		e.Close()
	}
	// Without sslmode, a loopback server that has no TLS is spoken to in clear.
	e := inClear.open(t, map[string]any{"connection_url": "postgresql://{{username}}:{{password}}@" + plain.Addr() + "/" + inClear.db})
	if h := e.Check(t.Context()); h.TLS != "none" {
		t.Errorf("loopback: %+v", h)
	}
}
