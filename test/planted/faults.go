package planted

// The packages that faults are planted in.
const (
	lease  = "internal/lease"
	shared = "internal/store/postgres"
)

// Faults are all that are planted. Those that are Live break what the crash test
// compares within seconds; the others need a moment that chance does not find so
// soon, and are caught by the test that makes it.
func Faults() []Fault {
	return []Fault{
		{Package: lease, Name: "intent after the source", Live: true, Edits: []Edit{{"issue.go",
			"	if err := m.intend(ctx, i); err != nil {\n		return err\n	}\n	failpoint.Hit(failpoint.F2)\n	m.metrics.IssueStep(i.engine.Name, \"intent\", time.Since(begun))\n\n	begun, ctx = time.Now(), context.WithoutCancel(ctx)\n	recipe, err := m.atSource(ctx, i)\n",
			"	ctx = context.WithoutCancel(ctx)\n	recipe, err := m.atSource(ctx, i)\n	if intent := m.intend(ctx, i); intent != nil {\n		return intent\n	}\n"}}},
		{Package: lease, Name: "a confirmation overrules a revocation", Run: "TestRevokeWhileIssuing", Edits: []Edit{
			{"issue.go", "case api.LeaseIssuing, api.LeaseActive: // active: a recovery was faster", "case api.LeaseIssuing, api.LeaseActive, api.LeaseRevoking:"},
			{"issue.go", "			case api.LeaseRevoking:\n				l.DueAt = &now\n			case api.LeaseRevoked:", "			case api.LeaseRevoked:"},
			{"issue.go", "				applyFences(l, fences, now)\n", "				_ = fences\n"}}},
		{Package: lease, Name: "a confirmation leaves the claim of whoever found nothing", Run: "TestRevokeWhileIssuing", Edits: []Edit{{"issue.go",
			"			l.Claim = nil\n			now := tx.Now()\n", "			now := tx.Now()\n"}}},
		{Package: lease, Name: "undo without ownership check", Edits: []Edit{
			{"issue.go", "		if kind(err) != engine.NameTaken || tried == namesTried {", "		if kind(err) == engine.NameTaken {\n			bounded, cancel := context.WithDeadline(ctx, i.plan.Deadline)\n			_, _ = i.handle.Revoke(bounded, i.plan.Recipe)\n			cancel()\n		}\n		if kind(err) != engine.NameTaken || tried == namesTried {"},
			{"leasetest/engine.go", "case a == nil || a.Mark != e.options.Installation || r.OID != 0 && r.OID != a.OID:\n		return engine.Outcome{}", "case a == nil:\n		return engine.Outcome{}"}}},
		{Package: lease, Name: "clock unguarded", Run: "TestClockJumps/forward", Edits: []Edit{{"../clock/store.go",
			"return t.guard.agree(t.Tx.Now()) }\nfunc (r guardedReader) Now() time.Time { return r.guard.agree(r.Reader.Now()) }",
			"return t.Tx.Now() }\nfunc (r guardedReader) Now() time.Time { return r.Reader.Now() }"}}},
		{Package: lease, Name: "late commit unguarded", Edits: []Edit{{"recover.go",
			"	settler, ok := h.Engine.(engine.Settler)\n	if !ok {", "	settler, ok := h.Engine.(engine.Settler)\n	if ok {"}}},
		{Package: lease, Name: "recovery closes without a look at the source", Edits: []Edit{{"recover.go",
			"			case found.State == engine.Usable:\n", "			case found.State == engine.Usable && l.Unconfirmed:\n"}}},
		{Package: lease, Name: "gives up after three", Edits: []Edit{{"worker.go",
			"				if l.Status == api.LeaseActive {\n					due = earlier(due, l.ExpiresAt)\n				}\n				l.DueAt = &due\n",
			"				if l.DueAt = &due; l.Revocation != nil && l.Revocation.Attempts >= 3 {\n					l.DueAt = nil\n				}\n"}}},
		{Package: lease, Name: "reconcile over one engine only", Run: "TestReconcile", Edits: []Edit{{"reconcile.go",
			"		l := borne[a.Username]\n		switch {\n		case l == nil:", "		l := borne[a.Username]\n		switch {\n		case l == nil || l.EngineID != e.ID:"}}},
		{Package: lease, Name: "claim write-back unguarded", Run: "TestRevokeWhileIssuing", Edits: []Edit{{"worker.go",
			"if mine = l.Claim != nil && *l.Claim == *row.Claim; mine {", "if mine = true; mine {"}}},
		{Package: lease, Name: "audit after the answer", Live: true, Edits: []Edit{{"issue.go",
			"		return tx.Audit(l.Tenant, i.pass.Entry(!withheld, extra))\n	})\n	switch {",
			"		e := i.pass.Entry(!withheld, extra)\n		time.AfterFunc(time.Second, func() {\n			_ = m.store.Write(ctx, func(tx store.Tx) error { return tx.Audit(l.Tenant, e) })\n		})\n		return nil\n	})\n	switch {"}}},
		{Package: lease, Name: "renewal at the source without a pending end", Edits: []Edit{{"renew.go",
			"			l.PendingExpiresAt, l.PendingDeadline, l.DueAt = &until, &deadline, &due\n",
			"			l.PendingExpiresAt, l.PendingDeadline, l.DueAt = &until, &deadline, &l.ExpiresAt\n"}}},
		{Package: lease, Name: "revoked while the source may still make it", Edits: []Edit{{"worker.go",
			"	case !l.Deadline.IsZero() && begun.Before(l.Deadline.Add(grace)):", "	case false:"}}},
		{Package: lease, Name: "dead by the time of the write-back", Edits: []Edit{{"worker.go",
			"	case !l.Deadline.IsZero() && begun.Before(l.Deadline.Add(grace)):", "	case !l.Deadline.IsZero() && now.Before(l.Deadline.Add(grace)):"}}},
		{Package: lease, Name: "a dead source stops the others", Run: "TestDeadSourceDelaysNobodyElse", Edits: []Edit{{"worker.go",
			"		m.wg.Go(func() { m.run(w) })\n", "		if len(m.workers) > 1 {\n			delete(m.workers, engineID)\n			return\n		}\n		m.wg.Go(func() { m.run(w) })\n"}}},
		{Package: shared, Name: "no lock between fence and intent", Run: "TestFenceAcrossNodes", Edits: []Edit{{"fence.go",
			"lock := \"SELECT pg_try_advisory_xact_lock_shared($1)\"", "lock := \"SELECT $1::bigint IS NOT NULL\""}}},
	}
}
