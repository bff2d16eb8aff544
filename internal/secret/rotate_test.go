package secret_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/rotation"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/secret"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// clockwork is a world in a bubble of its own time, with rotation policies and schedulers.
type clockwork struct {
	*world
	dir        string
	policies   *rotation.Service
	schedulers []*rotation.Scheduler
	admin      *access.Caller
	// atSource stands for the engines: paths below infra/ are roots.
	atSource func(path string) error
	rotated  atomic.Int64 // at the source
}

func inTime(t *testing.T, test func(w *clockwork)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	key, err := seal.CreateFile(filepath.Join(dir, "seal.key"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := &clockwork{world: &world{T: t}, dir: dir, atSource: func(string) error { return nil }}
		w.start(key)
		w.admin = w.caller("user:admin", policy.Rule{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}})
		defer w.end()
		test(w)
	})
}

// start opens the store, with one scheduler at work.
func (w *clockwork) start(key seal.Seal) {
	w.Helper()
	st, err := sqlite.Open(context.Background(), sqlite.Config{Dir: w.dir, Chain: audit.Chain([]byte("test"))})
	if err != nil {
		w.Fatal(err)
	}
	keys, err := seal.Open(context.Background(), st, key)
	if err != nil {
		w.Fatal(err)
	}
	door := access.New(access.Config{Store: st, Limits: access.Limits{Off: true}})
	w.store, w.secrets, w.policies = st, secret.New(st, door, keys), rotation.New(st, door, keys)
	w.schedulers = nil
	w.secrets.Join(secret.Hooks{Generate: w.policies.Next, AtSource: w.root,
		Scheduled: func() {
			for _, s := range w.schedulers {
				s.Kick()
			}
		}})
	w.scheduler()
}

// scheduler puts one more to work, as another node would.
func (w *clockwork) scheduler() {
	s := rotation.NewScheduler(w.store, w.secrets, nil, slog.New(slog.DiscardHandler))
	w.schedulers = append(w.schedulers, s)
	s.Start()
}

// root rotates what lies below infra/, as the engines do.
func (w *clockwork) root(ctx context.Context, pass *access.Pass, path string) (version int, found bool, err error) {
	if !strings.HasPrefix(path, "infra/") {
		return 0, false, nil
	}
	if err := w.atSource(path); err != nil {
		return 0, true, pass.Record(ctx, err)
	}
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		version, err = w.secrets.AddVersion(tx, tenant, path, nil, "dynamic:x")
		return err
	})
	if err == nil {
		w.rotated.Add(1)
		w.secrets.Announce(tenant, path, version)
	}
	return version, true, err
}

func (w *clockwork) end() {
	for _, s := range w.schedulers {
		s.Stop()
		s.Stop()
	}
	if err := w.store.Close(); err != nil {
		w.Error(err)
	}
}

// restart stops for a while and starts again.
func (w *clockwork) restart(after time.Duration) {
	w.Helper()
	w.end()
	time.Sleep(after)
	key, err := seal.OpenFile(filepath.Join(w.dir, "seal.key"))
	if err != nil {
		w.Fatal(err)
	}
	w.start(key)
}

func (w *clockwork) policy(name string, interval time.Duration, change ...func(r *api.RotationPolicyRequest)) *api.RotationPolicy {
	w.Helper()
	every := api.Duration(interval)
	r := &api.RotationPolicyRequest{Name: name, Interval: &every}
	for _, c := range change {
		c(r)
	}
	p, err := w.policies.Create(w.Context(), w.admin, r)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *clockwork) assign(p *api.RotationPolicy, paths ...string) {
	w.Helper()
	for _, path := range paths {
		w.mustPut(w.admin, path, "first", nil)
		if _, err := w.secrets.Assign(w.Context(), w.admin, p.ID, path); err != nil {
			w.Fatal(err)
		}
	}
}

func (w *clockwork) secret(path string) *api.Secret {
	w.Helper()
	synctest.Wait()
	s, err := w.secrets.Metadata(w.Context(), w.admin, path)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *clockwork) wantVersion(path string, version int) {
	w.Helper()
	if got := w.secret(path).Version; got != version {
		w.Errorf("%s has version %d, want %d", path, got, version)
	}
}

func (w *clockwork) wantState(path, state string) {
	w.Helper()
	if r := w.secret(path).Rotation; r == nil || r.State != state {
		w.Errorf("%s is %+v, want %s", path, r, state)
	}
}

// day is a short one, so that the tests need not look so often.
const day = 2 * time.Hour

func TestSchedule(t *testing.T) {
	inTime(t, func(w *clockwork) {
		grace := api.Duration(time.Hour)
		p := w.policy("daily", day, func(r *api.RotationPolicyRequest) { r.GracePeriod = &grace })
		w.assign(p, "app/a", "app/b")
		time.Sleep(day - 10*time.Minute)
		w.wantVersion("app/a", 1)
		time.Sleep(10 * time.Minute)
		w.wantVersion("app/a", 2)
		w.wantVersion("app/b", 2)
		if w.read(w.admin, "app/a", 1) != `"first"` {
			t.Error("the former version is not readable in its grace period")
		}
		if now := w.read(w.admin, "app/a", 0); now == `"first"` || len(now) != 34 {
			t.Errorf("the value is %s", now)
		}
		time.Sleep(time.Hour)
		_, err := w.secrets.Read(w.Context(), w.admin, "app/a", 1)
		w.wants("after the grace period", err, fault.VersionNotFound)
		time.Sleep(9 * day)
		if v := w.secret("app/a").Version; v != 11 {
			t.Errorf("after ten days version %d", v)
		}
	})
}

// What was missed is done once, whatever the number of intervals that passed, and also on the day on
// which the server starts.
func TestMissedRotationsAreDoneOnce(t *testing.T) {
	inTime(t, func(w *clockwork) {
		p := w.policy("daily", day)
		w.assign(p, "app/a")
		w.restart(30 * day)
		w.wantVersion("app/a", 2)
		time.Sleep(day / 2)
		w.wantVersion("app/a", 2)
		time.Sleep(day / 2)
		w.wantVersion("app/a", 3)
		w.restart(time.Hour)
		w.wantVersion("app/a", 3)
	})
}

func TestManySchedulersRotateOnce(t *testing.T) {
	inTime(t, func(w *clockwork) {
		for range 3 {
			w.scheduler()
		}
		p := w.policy("hourly", time.Hour)
		var paths []string
		for i := range 20 {
			paths = append(paths, fmt.Sprint("app/s", i))
		}
		w.assign(p, paths...)
		w.assign(p, "infra/root")
		time.Sleep(5*time.Hour + time.Minute)
		for _, path := range append(paths, "infra/root") {
			w.wantVersion(path, 6)
		}
		if n := w.rotated.Load(); n != 5 {
			t.Errorf("the root was rotated %d times at its source", n)
		}
	})
}

// A version by hand begins a new interval; a rotation by order, too.
func TestIntervalCountsFromTheNewestVersion(t *testing.T) {
	inTime(t, func(w *clockwork) {
		p := w.policy("daily", day)
		w.assign(p, "app/a")
		time.Sleep(day * 5 / 6)
		w.mustPut(w.admin, "app/a", "by hand", nil)
		time.Sleep(day * 5 / 6)
		w.wantVersion("app/a", 2)
		if _, err := w.secrets.Rotate(w.Context(), w.admin, "app/a", &api.SecretRotate{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(day * 5 / 6)
		w.wantVersion("app/a", 3)
		time.Sleep(day / 6)
		w.wantVersion("app/a", 4)
	})
}

// A source that refuses, or hangs, delays nobody else, and is tried later and later.
func TestFailuresBackOff(t *testing.T) {
	inTime(t, func(w *clockwork) {
		var tries atomic.Int64
		w.atSource = func(path string) error {
			if strings.HasPrefix(path, "infra/dead") {
				if path == "infra/dead" {
					tries.Add(1)
				}
				time.Sleep(40 * time.Second)
				return fault.New(fault.EngineUnavailable, "the source of engine dead cannot be used now")
			}
			return nil
		}
		p := w.policy("daily", day)
		alive := []string{"infra/alive", "infra/well", "infra/fine", "app/a"}
		w.assign(p, append(alive, "infra/dead")...)
		for i := range 30 {
			w.assign(p, fmt.Sprint("infra/dead-", i))
		}
		time.Sleep(day)
		for _, path := range alive {
			w.wantVersion(path, 2)
		}
		w.wantVersion("infra/dead", 1)
		time.Sleep(day - time.Minute)
		r := w.secret("infra/dead").Rotation
		if r.State != api.RotationOverdue || r.Failures < 8 || !strings.Contains(r.LastError, "engine dead") {
			t.Errorf("%+v", r)
		}
		if n := tries.Load(); n < 8 || n > 20 {
			t.Errorf("tried %d times in two hours", n)
		}
		w.atSource = func(string) error { return nil }
		time.Sleep(time.Hour + time.Minute)
		w.wantVersion("infra/dead", 2)
		if r := w.secret("infra/dead").Rotation; r.Failures != 0 || r.LastError != "" || r.State != api.RotationScheduled {
			t.Errorf("after a success %+v", r)
		}
	})
}

// The process dies while it rotates: the secret is taken up again.
func TestTakenAndLeft(t *testing.T) {
	inTime(t, func(w *clockwork) {
		p := w.policy("hourly", time.Hour)
		w.assign(p, "app/a")
		w.schedulers[0].Stop()
		time.Sleep(time.Hour)
		need, err := w.secrets.Take(w.Context(), tenant, "app/a", 30*time.Second)
		if err != nil || need != rotation.Value {
			t.Fatalf("%v, %v", need, err)
		}
		if need, err = w.secrets.Take(w.Context(), tenant, "app/a", 30*time.Second); err != nil || need != rotation.Nothing {
			t.Fatalf("taken twice: %v, %v", need, err)
		}
		w.restart(0)
		w.wantVersion("app/a", 1)
		time.Sleep(40 * time.Second)
		w.wantVersion("app/a", 2)
	})
}

func TestPoliciesOfPeople(t *testing.T) {
	inTime(t, func(w *clockwork) {
		warn, off := api.Duration(30*time.Minute), false
		p := w.policy("by-hand", day, func(r *api.RotationPolicyRequest) { r.WarnBefore, r.AutoGenerate = &warn, &off })
		w.assign(p, "app/a")
		w.wantState("app/a", api.RotationScheduled)
		time.Sleep(day - 15*time.Minute)
		w.wantState("app/a", api.RotationDue)
		time.Sleep(30 * time.Minute)
		w.wantState("app/a", api.RotationOverdue)
		w.wantVersion("app/a", 1)
		list, err := w.secrets.List(w.Context(), w.admin, secret.Filter{DueBefore: ptr(time.Now())}, page.Request{})
		if err != nil || len(list.Secrets) != 1 || list.Secrets[0].RotationState != api.RotationOverdue {
			t.Errorf("what is due: %+v, %v", list, err)
		}
		var due int64
		err = w.store.Read(w.Context(), func(r store.Reader) error {
			due, _, err = r.RotationsDue(r.Now())
			return err
		})
		if err != nil || due != 1 {
			t.Errorf("%d in the queue, %v", due, err)
		}
		w.mustPut(w.admin, "app/a", "by hand", nil)
		w.wantState("app/a", api.RotationScheduled)
	})
}

func TestPolicyChanges(t *testing.T) {
	inTime(t, func(w *clockwork) {
		p := w.policy("daily", day)
		w.assign(p, "app/a")
		patch := func(r *api.RotationPolicyPatch) {
			t.Helper()
			if _, err := w.policies.Patch(w.Context(), w.admin, p.ID, r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		patch(&api.RotationPolicyPatch{IsActive: ptr(false)})
		w.wantState("app/a", api.RotationPaused)
		time.Sleep(3 * day)
		w.wantVersion("app/a", 1)
		patch(&api.RotationPolicyPatch{IsActive: ptr(true)})
		w.wantVersion("app/a", 2)
		patch(&api.RotationPolicyPatch{Interval: ptr(api.Duration(time.Hour))})
		time.Sleep(time.Hour)
		w.wantVersion("app/a", 3)
		patch(&api.RotationPolicyPatch{Interval: ptr(api.Duration(10 * day))})
		time.Sleep(9 * day)
		w.wantVersion("app/a", 3)

		w.wants("delete in use", w.policies.Delete(w.Context(), w.admin, p.ID), fault.PolicyInUse)
		if a, err := w.secrets.RotateAll(w.Context(), w.admin, p.ID); err != nil || a.Scheduled != 1 {
			t.Fatalf("%+v, %v", a, err)
		}
		time.Sleep(time.Second)
		w.wantVersion("app/a", 4)
		if err := w.secrets.Unassign(w.Context(), w.admin, p.ID, "app/a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * day)
		w.wantVersion("app/a", 4)
		if err := w.policies.Delete(w.Context(), w.admin, p.ID); err != nil {
			t.Fatal(err)
		}
	})
}

// A deleted secret rests, and goes on when it is brought back; in quarantine all rest.
func TestWhatRests(t *testing.T) {
	inTime(t, func(w *clockwork) {
		p := w.policy("daily", day)
		w.assign(p, "app/a", "app/b")
		if _, err := w.secrets.Delete(w.Context(), w.admin, "app/a"); err != nil {
			t.Fatal(err)
		}
		set := func(active bool) {
			w.write(func(tx store.Tx) error { return quarantine.Put(tx, &quarantine.State{Active: active, Since: tx.Now()}) })
		}
		set(true)
		time.Sleep(2 * day)
		w.wantVersion("app/b", 1)
		set(false)
		time.Sleep(time.Minute)
		w.wantVersion("app/b", 2)
		if _, err := w.secrets.Undelete(w.Context(), w.admin, "app/a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.wantVersion("app/a", 2)
	})
}

// The trail names the server itself, and every rotation once.
func TestRotationIsRecorded(t *testing.T) {
	inTime(t, func(w *clockwork) {
		p := w.policy("hourly", time.Hour)
		w.assign(p, "app/a")
		time.Sleep(3 * time.Hour)
		w.wantVersion("app/a", 4)
		n := 0
		err := w.store.Read(w.Context(), func(r store.Reader) error {
			rows, err := r.AuditChain(w.store.Node(), 1, 0)
			for _, row := range rows {
				if row.Entry.Action == "rotate" && row.Entry.IdentityID == rotation.Identity && row.Entry.SecretPath == "app/a" && row.Entry.Success {
					n++
				}
			}
			return err
		})
		if err != nil || n != 3 {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

// Of two rotations at once, one has written and the other is told so.
func TestRotateTwiceAtOnce(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	w.mustPut(c, "app/a", "first", nil)
	const tries = 8
	results := make(chan error, tries)
	var arrived sync.WaitGroup
	arrived.Add(tries)
	w.secrets.Join(secret.Hooks{Generate: func(_ *store.Config, _, _ string, data map[string]json.RawMessage) (map[string]json.RawMessage, error) {
		arrived.Done()
		arrived.Wait()
		return data, nil
	}})
	for range tries {
		own := *c
		go func() {
			_, err := w.secrets.Rotate(context.Background(), &own, "app/a", &api.SecretRotate{})
			results <- err
		}()
	}
	won := 0
	for range tries {
		if err := <-results; err == nil {
			won++
		} else if !errors.Is(err, fault.VersionConflict) {
			t.Error(err)
		}
	}
	if a, err := w.secrets.Metadata(t.Context(), c, "app/a"); err != nil || won != 1 || a.Version != 2 {
		t.Errorf("%d have won, the version is %d: %v", won, a.Version, err)
	}
}

func TestRightsToRotate(t *testing.T) {
	inTime(t, func(w *clockwork) {
		p := w.policy("daily", day)
		w.mustPut(w.admin, "app/a", "first", nil)
		writer := w.caller("user:writer", policy.Rule{PathPattern: "app/*", Permissions: []policy.Permission{"read", "write"}})
		rotator := w.caller("user:rotator", policy.Rule{PathPattern: "app/*", Permissions: []policy.Permission{"rotate"}})
		_, err := w.put(writer, "app/a", "second", &api.SecretOptions{RotationPolicyID: p.ID})
		w.wants("assign by who may only write", err, fault.AccessDenied)
		narrow := *w.admin
		narrow.Scopes = []string{access.ScopeSecretsWrite}
		_, err = w.put(&narrow, "app/a", "second", &api.SecretOptions{RotationPolicyID: p.ID})
		w.wants("assign with a token for writing", err, fault.InsufficientScope)
		_, err = w.secrets.Rotate(w.Context(), writer, "app/a", &api.SecretRotate{})
		w.wants("rotate by who may only write", err, fault.AccessDenied)
		_, err = w.secrets.Assign(w.Context(), rotator, "rot_none", "app/a")
		w.wants("assign to none", err, fault.RotationPolicyNotFound)
		if _, err = w.secrets.Assign(w.Context(), rotator, p.ID, "app/a"); err != nil {
			t.Error(err)
		}
		a, err := w.secrets.Rotate(w.Context(), rotator, "app/a", &api.SecretRotate{})
		if err != nil || a.Data != nil || a.Version != 2 {
			t.Errorf("%+v, %v", a, err)
		}
		w.mustPut(w.admin, "other", "first", &api.SecretOptions{RotationPolicyID: p.ID})
		both := w.caller("user:both", policy.Rule{PathPattern: "sys/rotation/policies/daily", Permissions: []policy.Permission{"read", "write"}},
			policy.Rule{PathPattern: "app/*", Permissions: []policy.Permission{"rotate", "list"}})
		_, err = w.secrets.RotateAll(w.Context(), both, p.ID)
		w.wants("rotate all by who may not rotate one of them", err, fault.AccessDenied)
		list, err := w.secrets.OfPolicy(w.Context(), both, p.ID, page.Request{})
		if err != nil || len(list.Secrets) != 1 {
			t.Errorf("the secrets that may be listed: %+v, %v", list, err)
		}
	})
}

func TestBadPolicies(t *testing.T) {
	inTime(t, func(w *clockwork) {
		hour, second, ten := api.Duration(time.Hour), api.Duration(time.Second), int64(10)
		zero, negative, absurd := int64(0), int64(-5), int64(1)<<60
		for name, tt := range map[string]struct {
			r    api.RotationPolicyRequest
			code fault.Code
		}{
			"no interval":         {api.RotationPolicyRequest{Name: "x"}, fault.InvalidDuration},
			"too short":           {api.RotationPolicyRequest{Name: "x", Interval: &second}, fault.InvalidDuration},
			"zero seconds":        {api.RotationPolicyRequest{Name: "x", IntervalSeconds: &zero}, fault.InvalidDuration},
			"negative":            {api.RotationPolicyRequest{Name: "x", IntervalSeconds: &negative}, fault.InvalidDuration},
			"absurd":              {api.RotationPolicyRequest{Name: "x", IntervalSeconds: &absurd}, fault.InvalidDuration},
			"two intervals":       {api.RotationPolicyRequest{Name: "x", Interval: &hour, IntervalSeconds: &ten}, fault.InvalidDuration},
			"warned too early":    {api.RotationPolicyRequest{Name: "x", Interval: &hour, WarnBefore: &hour}, fault.InvalidDuration},
			"no name":             {api.RotationPolicyRequest{Interval: &hour}, fault.InvalidRequest},
			"a path for a name":   {api.RotationPolicyRequest{Name: "a/b", Interval: &hour}, fault.InvalidRequest},
			"webhooks":            {api.RotationPolicyRequest{Name: "x", Interval: &hour, WebhookIDs: []string{"wh_1"}}, fault.InvalidRequest},
			"no such generator":   {api.RotationPolicyRequest{Name: "x", Interval: &hour, SecretPolicyID: "sp_none"}, fault.SecretPolicyNotFound},
			"a long description":  {api.RotationPolicyRequest{Name: "x", Interval: &hour, Description: strings.Repeat("d", 1025)}, fault.InvalidRequest},
			"an interval that is": {api.RotationPolicyRequest{Name: "fits", IntervalSeconds: &ten}, ""},
		} {
			_, err := w.policies.Create(w.Context(), w.admin, &tt.r)
			w.wants(name, err, tt.code)
		}
		_, err := w.policies.Create(w.Context(), w.admin, &api.RotationPolicyRequest{Name: "fits", Interval: &hour})
		w.wants("a name that is", err, fault.RotationPolicyExists)
		list, err := w.policies.List(w.Context(), w.admin, page.Request{})
		if err != nil || len(list.Data) != 1 || list.Data[0].IntervalSeconds != 10 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// The value of a static policy is written into secrets, and shown nowhere else; nor is it stored in
// the clear.
func TestStaticValueStaysInside(t *testing.T) {
	inTime(t, func(w *clockwork) {
		const canary = "canary-value-Zk7"
		sp, err := w.policies.CreateSecretPolicy(w.Context(), w.admin, &api.SecretPolicyRequest{Name: "fixed", Generator: "static",
			Parameters: &api.GeneratorParameters{Value: canary, Field: "password"}})
		if err != nil {
			t.Fatal(err)
		}
		p := w.policy("hourly", time.Hour, func(r *api.RotationPolicyRequest) { r.SecretPolicyID = sp.ID })
		w.assign(p, "app/a")
		time.Sleep(time.Hour)
		w.wantVersion("app/a", 2)
		if got := w.read(w.admin, "app/a", 0); got != `"`+canary+`"` {
			t.Errorf("the value is %s", got)
		}
		_, err = w.policies.Generate(w.Context(), w.admin, sp.ID)
		w.wants("generate", err, fault.InvalidRequest)
		if _, err := w.policies.PatchSecretPolicy(w.Context(), w.admin, sp.ID, &api.SecretPolicyPatch{Description: ptr("kept")}); err != nil {
			t.Error(err)
		}
		shown, err := w.policies.SecretPolicy(w.Context(), w.admin, sp.ID)
		if err != nil || shown.Parameters.Value != "" || shown.Description != "kept" {
			t.Errorf("%+v, %v", shown, err)
		}
		o := w.store.Config().Object(tenant, store.KindSecretPolicy, sp.ID)
		if strings.Contains(string(o.Doc), canary) {
			t.Error("the value is stored in the clear")
		}
		w.wants("delete in use", w.policies.DeleteSecretPolicy(w.Context(), w.admin, sp.ID), fault.PolicyInUse)
	})
}
