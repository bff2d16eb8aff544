package storetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

func (b *bundle) audit(t *testing.T, tenant string, entries ...*api.AuditEntry) {
	t.Helper()
	for _, e := range entries {
		b.write(t, func(tx store.Tx) error { return tx.Audit(tenant, e) })
	}
}

// verify recomputes the node's chain from its head and answers its rows.
func (b *bundle) verify(t *testing.T) (rows []*store.AuditRow, head store.AuditHead) {
	t.Helper()
	b.read(t, func(r store.Reader) {
		heads := value[[]store.AuditHead](t)(r.AuditHeads())
		if len(heads) != 1 || heads[0].Node != b.Node() {
			t.Fatalf("heads: %+v", heads)
		}
		head = heads[0]
		prev, seq := head.Base, head.FirstSeq
		for { // two at a time: the pages join without gap
			page := value[[]*store.AuditRow](t)(r.AuditChain(b.Node(), seq, 2))
			if len(page) == 0 {
				break
			}
			for _, row := range page {
				if row.Seq != seq {
					t.Fatalf("entry %d where %d should be", row.Seq, seq)
				}
				if !bytes.Equal(row.MAC, Chain(prev, store.AuditMessage(row))) {
					t.Fatalf("entry %d does not verify", seq)
				}
				prev, seq = row.MAC, seq+1
			}
			rows = append(rows, page...)
		}
		if head.LastSeq != seq-1 || !bytes.Equal(head.LastMAC, prev) {
			t.Fatalf("head ends at %d with %x, the chain at %d with %x", head.LastSeq, head.LastMAC, seq-1, prev)
		}
	})
	return rows, head
}

func auditChain(t *testing.T, b *bundle) {
	b.read(t, func(r store.Reader) {
		if heads := value[[]store.AuditHead](t)(r.AuditHeads()); len(heads) != 0 {
			t.Errorf("an empty chain has heads: %+v", heads)
		}
	})
	first, second := entry("a.one"), entry("a.two")
	second.ID, second.Timestamp = ident.New(ident.AuditEntry), noon.Add(time.Nanosecond).In(time.FixedZone("x", 60))
	second.ExtraData = map[string]any{"n": 1.5, "s": "<&>\u2028"}
	b.audit(t, tenant, first)
	b.audit(t, "tnt_2", second)
	if !ident.Valid(ident.AuditEntry, first.ID) || time.Since(first.Timestamp).Abs() > time.Hour {
		t.Errorf("id and time were not filled: %+v", first)
	}
	b.reopen(t)
	b.audit(t, tenant, entry("a.three"))

	rows, head := b.verify(t)
	if len(rows) != 3 || head.FirstSeq != 1 || len(head.Base) != 0 {
		t.Fatalf("%d rows, head %+v", len(rows), head)
	}
	wantEqual(t, "first", rows[0].Entry, first)
	second.Timestamp = noon
	wantEqual(t, "second", rows[1].Entry, second)
	if rows[0].Tenant != tenant || rows[1].Tenant != "tnt_2" {
		t.Errorf("tenants %s, %s", rows[0].Tenant, rows[1].Tenant)
	}
	var raw api.AuditEntry
	must(t, json.Unmarshal(rows[1].Raw, &raw))
	wantEqual(t, "the recorded bytes", raw, rows[1].Entry)
	b.read(t, func(r store.Reader) {
		if other := value[[]*store.AuditRow](t)(r.AuditChain("n_other", 1, 0)); len(other) != 0 {
			t.Errorf("chain of an unknown node: %v", other)
		}
	})
}

func auditFilters(t *testing.T, b *bundle) {
	for i := range 6 {
		e := entry(fmt.Sprintf("action.%d", i))
		e.Timestamp = at(time.Duration(i) * time.Minute)
		switch i {
		case 1:
			e.IdentityID, e.IdentityType, e.SourceIP = "user:x", "user", "10.0.0.1"
		case 2:
			e.SecretPath, e.Success = "infra/pg/root", false
		case 3:
			e.RequestID = "req_other"
		}
		b.audit(t, tenant, e)
	}
	b.audit(t, "tnt_2", entry("elsewhere"))
	failed := false
	type f = store.AuditFilter
	for name, tt := range map[string]struct {
		f      f
		before int64
		limit  int
		want   []int64
	}{
		"tenant":        {f{Tenant: tenant}, 0, 0, []int64{6, 5, 4, 3, 2, 1}},
		"page":          {f{Tenant: tenant}, 5, 2, []int64{4, 3}},
		"end":           {f{Tenant: tenant}, 1, 2, []int64{}},
		"from":          {f{Tenant: tenant, From: atp(4 * time.Minute)}, 0, 0, []int64{6, 5}},
		"to":            {f{Tenant: tenant, To: atp(time.Minute)}, 0, 0, []int64{1}},
		"window":        {f{Tenant: tenant, From: atp(time.Minute), To: atp(3 * time.Minute)}, 3, 0, []int64{2}},
		"action":        {f{Tenant: tenant, Action: "action.4"}, 0, 0, []int64{5}},
		"identity":      {f{Tenant: tenant, IdentityID: "sa:ci"}, 4, 2, []int64{3, 1}},
		"identity type": {f{Tenant: tenant, IdentityType: "user"}, 0, 0, []int64{2}},
		"source ip":     {f{Tenant: tenant, SourceIP: "10.0.0.1"}, 0, 0, []int64{2}},
		"path":          {f{Tenant: tenant, Path: "infra/pg/root"}, 0, 0, []int64{3}},
		"path prefix":   {f{Tenant: tenant, PathPrefix: "infra/"}, 0, 0, []int64{3}},
		"failed":        {f{Tenant: tenant, Success: &failed}, 0, 0, []int64{3}},
		"request":       {f{Tenant: tenant, RequestID: "req_other"}, 0, 0, []int64{4}},
		"other tenant":  {f{Tenant: "tnt_2"}, 0, 0, []int64{7}},
		"nothing":       {f{Tenant: tenant, Path: "infra"}, 0, 0, []int64{}},
	} {
		b.read(t, func(r store.Reader) {
			got := []int64{}
			for _, row := range value[[]*store.AuditRow](t)(r.AuditEntries(tt.f, tt.before, tt.limit)) {
				got = append(got, row.Seq)
			}
			wantEqual(t, name, got, tt.want)
		})
	}
}

// A trimmed chain verifies from its base, goes on after it, also when nothing of it is kept.
func auditTrim(t *testing.T, b *bundle) {
	for i := range 5 {
		e := entry("x")
		e.Timestamp = at(time.Duration(i) * time.Minute)
		b.audit(t, tenant, e)
	}
	trim := func(before time.Time, limit, want int) {
		t.Helper()
		b.write(t, func(tx store.Tx) error {
			n, err := tx.Trim(noon, before, limit)
			if n != want {
				t.Errorf("trimmed %d, want %d", n, want)
			}
			return err
		})
	}
	trim(at(3*time.Minute), 2, 2)
	trim(at(3*time.Minute), 9, 1)
	trim(at(3*time.Minute), 9, 0)
	rows, head := b.verify(t)
	if len(rows) != 2 || head.FirstSeq != 4 || len(head.Base) == 0 {
		t.Errorf("%d rows, head %+v", len(rows), head)
	}
	trim(at(time.Hour), 9, 2)
	if rows, head = b.verify(t); len(rows) != 0 || head.FirstSeq != 6 {
		t.Errorf("%d rows, head %+v", len(rows), head)
	}
	b.reopen(t)
	b.audit(t, tenant, entry("y"))
	if rows, _ = b.verify(t); len(rows) != 1 || rows[0].Seq != 6 {
		t.Errorf("the chain does not go on: %+v", rows)
	}
}

func auditCounts(t *testing.T, b *bundle) {
	for i, success := range []bool{true, true, false, true} {
		e := entry("x")
		e.Timestamp, e.Success = at(time.Duration(i)*time.Minute), success
		b.audit(t, tenant, e)
	}
	b.audit(t, "tnt_2", entry("x"))
	b.read(t, func(r store.Reader) {
		got := map[store.AuditCount]bool{}
		for _, c := range value[[]store.AuditCount](t)(r.AuditCounts(tenant, noon, at(3*time.Minute))) {
			got[c] = true
		}
		if len(got) != 2 || !got[store.AuditCount{Action: "x", Success: true, N: 2}] || !got[store.AuditCount{Action: "x", N: 1}] {
			t.Errorf("counts: %v", got)
		}
	})
}

// A change and its entry are durable together or not at all (law L7).
func writeAuditAtomic(t *testing.T, b *bundle) {
	kept := lease()
	b.write(t, func(tx store.Tx) error {
		return errors.Join(tx.InsertLease(kept), tx.Audit(tenant, entry("kept")))
	})
	boom := errors.New("boom")
	undone := lease()
	err := b.Write(t.Context(), func(tx store.Tx) error {
		return errors.Join(tx.InsertLease(undone), tx.Audit(tenant, entry("undone")), boom)
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	b.audit(t, tenant, entry("next"))
	rows, _ := b.verify(t)
	if len(rows) != 2 || rows[0].Entry.Action != "kept" || rows[1].Entry.Action != "next" {
		t.Errorf("chain: %+v", rows)
	}
	b.read(t, func(r store.Reader) {
		if _, err := r.Lease(tenant, undone.ID); err == nil {
			t.Error("the undone change is there")
		}
		if _, err := r.Lease(tenant, kept.ID); err != nil {
			t.Errorf("the kept change: %v", err)
		}
	})
}
