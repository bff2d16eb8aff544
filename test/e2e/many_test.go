package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// Many living credentials of the privileges form: each logs in and reads a
// table that was made after the role. The speed of issuing is printed, and
// asserted nowhere.
func TestManyLivingCredentials(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Start(t, 17), functions)
	v.engine(t, s, "db", map[string]any{"max_open_connections": 8})
	role := reader("reader")
	role["privileges_refresh"] = "1s"
	v.role(t, "db", role)

	n := size(300, 5000)
	batch := n / 10
	var creds []credential
	var first, last float64
	for range 10 {
		start := time.Now()
		creds = append(creds, v.issueMany(t, "db", "reader", time.Hour, batch)...)
		last = float64(batch) / time.Since(start).Seconds()
		if first == 0 {
			first = last
		}
	}
	t.Logf("issued %d with 8 callers: at first %.0f/s, at last %.0f/s, ratio %.2f", len(creds), first, last, last/first)

	s.server.ExecIn(t, s.db, "CREATE TABLE later (id int); INSERT INTO later VALUES (7)")
	eventually(t, 20*time.Second, "the later table is readable", func() bool {
		fresh := v.issue(t, v.admin, "db", "reader", 0)
		creds = append(creds, fresh)
		_, err := s.login(t, fresh).Exec(t.Context(), "SELECT FROM public.later")
		return err == nil
	})
	each(t, 8, len(creds), func(i int) error {
		conn := s.login(t, creds[i])
		defer conn.Close(t.Context())
		var id int
		if err := conn.QueryRow(t.Context(), "SELECT id FROM public.later").Scan(&id); err != nil || id != 7 {
			return fmt.Errorf("%s reads the later table: %d, %w", creds[i].username, id, err)
		}
		return nil
	})
	start := time.Now()
	result, err := v.admin.RevokePrefix(t.Context(), "db", 5*time.Minute)
	if err != nil || result.Pending != 0 || result.Revoked != int64(len(creds)) {
		t.Errorf("revoke all: %+v, %v", result, err)
	}
	t.Logf("revoked %d by prefix in %s", len(creds), time.Since(start).Round(time.Millisecond))
	if left := s.accounts(t); len(left) != 0 {
		t.Errorf("%d accounts are left", len(left))
	}
}

// Cycles of issuing and revoking leave nothing: no account, no right, and the
// same speed.
func TestCyclesLeaveNothing(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Start(t, 17), createRole)
	v.engine(t, s, "db", map[string]any{"max_open_connections": 8})
	roles := []client.Document{reader("grouped"), direct("direct")}
	for _, role := range roles {
		v.role(t, "db", role)
	}
	rights := func() int {
		return s.count(t, "SELECT coalesce(sum(pg_column_size(relacl)), 0)::int FROM pg_class") +
			s.count(t, "SELECT coalesce(sum(pg_column_size(nspacl)), 0)::int FROM pg_namespace") +
			s.count(t, "SELECT count(*)::int FROM pg_shdepend") + s.count(t, "SELECT count(*)::int FROM pg_auth_members")
	}
	cycles := func(n int) (perSecond float64) {
		start := time.Now()
		each(t, 8, n, func(i int) error {
			c, err := v.ask(t.Context(), v.admin, "db", fmt.Sprint(roles[i%2]["name"]), 0)
			if err != nil {
				return err
			}
			pending, err := v.admin.RevokeLease(t.Context(), c.lease, time.Minute)
			if err == nil && pending != nil {
				err = fmt.Errorf("revoke: it is still to die: %+v", pending.Revocation)
			}
			return err
		})
		return float64(n) / time.Since(start).Seconds()
	}
	n := size(200, 5000)
	cycles(n / 10) // the groups are made
	size := rights()
	first := cycles(n / 10)
	cycles(n - 3*(n/10))
	last := cycles(n / 10)
	t.Logf("%d cycles: at first %.0f/s, at last %.0f/s, ratio %.2f", n, first, last, last/first)
	if after := rights(); after != size {
		t.Errorf("access lists, dependencies and memberships had the size %d and have %d", size, after)
	}
	if left := s.accounts(t); len(left) != 0 {
		t.Errorf("%d accounts are left", len(left))
	}
}

// On 16 and later a CREATEROLE root gets slower with every account that it has
// made. The health page says what it costs and what to do.
func TestHealthTellsWhatManyAccountsCost(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, 17)
	v, s := newVault(t), newSource(t, server, createRole)
	v.engine(t, s, "plain", map[string]any{"max_open_connections": 8})
	v.role(t, "plain", reader("reader"))
	warnings := func(engine string) string {
		h, err := v.admin.EngineHealth(t.Context(), engine)
		if err != nil || h.Status != "healthy" {
			t.Fatalf("health of %s: %+v, %v", engine, h, err)
		}
		return strings.Join(h.Warnings, "\n")
	}
	v.issue(t, v.admin, "plain", "reader", 0)
	if w := warnings("plain"); w != "" {
		t.Errorf("a warning with one lease: %s", w)
	}
	v.issueMany(t, "plain", "reader", time.Hour, 1000)
	w := warnings("plain")
	for _, must := range []string{"root made 100", "ms", "PostgreSQL 16", "setup-sql"} {
		if !strings.Contains(w, must) {
			t.Errorf("the warning does not hold %q: %s", must, w)
		}
	}

	// The same server, with the remedy.
	better := newSource(t, server, functions)
	v.engine(t, better, "better", map[string]any{"max_open_connections": 8})
	v.role(t, "better", reader("reader"))
	v.issueMany(t, "better", "reader", time.Hour, 1001)
	if w := warnings("better"); w != "" {
		t.Errorf("a warning with the functions installed: %s", w)
	}
}
