package lease_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// planted are known-bad builds: each is this package with some text replaced, and the tests named
// must fail on it. What is not here cannot be built on the embedded store: a missing lock between
// fence and intent, since one committer runs all transactions one after the other.
var planted = []struct {
	name  string
	run   string // the tests that must fail; the simulation when empty
	edits []edit
}{
	{name: "intent after the source", edits: []edit{{"issue.go",
		"	if err := m.intend(ctx, i); err != nil {\n		return err\n	}\n	failpoint.Hit(failpoint.F2)\n	m.metrics.IssueStep(i.engine.Name, \"intent\", time.Since(begun))\n\n	begun, ctx = time.Now(), context.WithoutCancel(ctx)\n	recipe, err := m.atSource(ctx, i)\n",
		"	ctx = context.WithoutCancel(ctx)\n	recipe, err := m.atSource(ctx, i)\n	if intent := m.intend(ctx, i); intent != nil {\n		return intent\n	}\n"}}},
	{name: "a confirmation overrules a revocation", run: "TestRevokeWhileIssuing", edits: []edit{
		{"issue.go", "case api.LeaseIssuing, api.LeaseActive: // active: a recovery was faster", "case api.LeaseIssuing, api.LeaseActive, api.LeaseRevoking:"},
		{"issue.go", "			case api.LeaseRevoking:\n				l.DueAt = &now\n			case api.LeaseRevoked:", "			case api.LeaseRevoked:"},
		{"issue.go", "				applyFences(l, fences, now)\n", "				_ = fences\n"}}},
	{name: "a confirmation leaves the claim of whoever found nothing", run: "TestRevokeWhileIssuing", edits: []edit{{"issue.go",
		"			l.Claim = nil\n			now := tx.Now()\n", "			now := tx.Now()\n"}}},
	{name: "undo without ownership check", edits: []edit{
		{"issue.go", "		if kind(err) != engine.NameTaken || tried == namesTried {", "		if kind(err) == engine.NameTaken {\n			m.undo(ctx, i, i.plan.Recipe)\n		}\n		if kind(err) != engine.NameTaken || tried == namesTried {"},
		{"leasetest/engine.go", "case a == nil || a.Mark != e.options.Installation || r.OID != 0 && r.OID != a.OID:\n		return engine.Outcome{}", "case a == nil:\n		return engine.Outcome{}"}}},
	{name: "late commit unguarded", edits: []edit{{"recover.go",
		"	settler, ok := h.Engine.(engine.Settler)\n	if !ok {", "	settler, ok := h.Engine.(engine.Settler)\n	if ok {"}}},
	{name: "recovery closes without a look at the source", edits: []edit{{"recover.go",
		"			case found.State == engine.Usable:\n", "			case found.State == engine.Usable && l.Unconfirmed:\n"}}},
	{name: "gives up after three", edits: []edit{{"worker.go",
		"				l.DueAt = &due\n			}); err != nil {\n				return err\n			}\n		}\n		return nil\n	})\n	if err != nil && m.ctx.Err() == nil {\n		m.log.Error(\"failed revocations",
		"				l.DueAt = &due\n				if r := l.Revocation; r != nil && r.Attempts >= 3 {\n					l.DueAt = nil\n				}\n			}); err != nil {\n				return err\n			}\n		}\n		return nil\n	})\n	if err != nil && m.ctx.Err() == nil {\n		m.log.Error(\"failed revocations"}}},
	{name: "reconcile over one engine only", run: "TestReconcile", edits: []edit{{"reconcile.go",
		"		l := borne[a.Username]\n		switch {\n		case l == nil:", "		l := borne[a.Username]\n		switch {\n		case l == nil || l.EngineID != e.ID:"}}},
	{name: "claim write-back unguarded", run: "TestRevokeWhileIssuing", edits: []edit{{"worker.go",
		"if mine = l.Claim != nil && *l.Claim == *row.Claim; mine {", "if mine = true; mine {"}}},
	{name: "audit after the answer", edits: []edit{{"issue.go",
		"		return tx.Audit(l.Tenant, i.pass.Entry(!withheld, extra))\n	})\n	switch {",
		"		e := i.pass.Entry(!withheld, extra)\n		time.AfterFunc(time.Second, func() {\n			_ = m.store.Write(ctx, func(tx store.Tx) error { return tx.Audit(l.Tenant, e) })\n		})\n		return nil\n	})\n	switch {"}}},
	{name: "renewal at the source without a pending end", edits: []edit{{"renew.go",
		"			l.PendingExpiresAt, l.PendingDeadline, l.DueAt = &until, &deadline, &due\n",
		"			l.PendingExpiresAt, l.PendingDeadline, l.DueAt = &until, &deadline, &l.ExpiresAt\n"}}},
	{name: "revoked while the source may still make it", edits: []edit{{"worker.go",
		"	case !l.Deadline.IsZero() && begun.Before(l.Deadline.Add(grace)):", "	case false:"}}},
	{name: "dead by the time of the write-back", edits: []edit{{"worker.go",
		"	case !l.Deadline.IsZero() && begun.Before(l.Deadline.Add(grace)):", "	case !l.Deadline.IsZero() && now.Before(l.Deadline.Add(grace)):"}}},
	{name: "a dead source stops the others", run: "TestDeadSourceDelaysNobodyElse", edits: []edit{{"worker.go",
		"		m.wg.Go(func() { m.run(w) })\n", "		if len(m.workers) > 1 {\n			delete(m.workers, engineID)\n			return\n		}\n		m.wg.Go(func() { m.run(w) })\n"}}},
}

type edit struct{ file, from, to string }

// TestPlanted builds each of the bad ones and wants it caught.
func TestPlanted(t *testing.T) { //nolint:tparallel // beside the other tests, but one after the other: each build and its run fill the machine
	t.Parallel()
	caught := 0
	for _, p := range planted {
		t.Run(strings.ReplaceAll(p.name, " ", "_"), func(t *testing.T) {
			if out, ok := runPlanted(t, p.run, p.edits); ok {
				t.Errorf("%s: not caught:\n%s", p.name, out)
			} else {
				caught++
			}
		})
	}
	t.Logf("caught %d / planted %d", caught, len(planted))
}

// runPlanted runs tests on the package with edits laid over it; ok tells that they passed. A build
// that fails proves nothing and ends the test.
func runPlanted(t *testing.T, run string, edits []edit) (out string, ok bool) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for k, e := range edits {
		file, err := filepath.Abs(e.file)
		if err != nil {
			t.Fatal(err)
		}
		present := file
		if replace[file] != "" {
			present = replace[file]
		}
		raw, err := os.ReadFile(present)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(raw), e.from); n != 1 {
			t.Fatalf("the text to replace occurs %d times in %s: the code has moved on, mend this list:\n%s", n, e.file, e.from)
		}
		bad := filepath.Join(dir, string(rune('a'+k))+".go")
		if err := os.WriteFile(bad, []byte(strings.Replace(string(raw), e.from, e.to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[file] = bad
	}
	overlay := filepath.Join(dir, "overlay.json")
	raw, _ := json.Marshal(map[string]any{"Replace": replace})
	if err := os.WriteFile(overlay, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "planted.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", binary, ".")
	if raw, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, raw)
	}
	if run == "" {
		run = "TestSimulation"
	}
	raw, err := exec.CommandContext(t.Context(), binary, "-test.run", "^("+run+")$", "-test.timeout", "60s", "-simtime", "25s").CombinedOutput()
	return tail(string(raw), 3000), err == nil
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
