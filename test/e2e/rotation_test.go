package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// callers issue and revoke on all nodes until stop; a failed request is an error of the test.
func (v *vault) callers(t *testing.T, nodes []*client.Client, n int) (stop func() int64) {
	t.Helper()
	done := make(chan struct{})
	var issued atomic.Int64
	var running sync.WaitGroup
	for i := range n {
		c := nodes[i%len(nodes)]
		running.Go(func() {
			for !isClosed(done) {
				lease, err := v.ask(t.Context(), c, "db", "reader", 0)
				if err == nil {
					issued.Add(1)
					_, err = c.RevokeLease(t.Context(), lease.lease, 0)
				}
				if err != nil {
					t.Errorf("a rotation reached a caller: %v", err)
					return
				}
			}
		})
	}
	return func() int64 {
		close(done)
		running.Wait()
		return issued.Load()
	}
}

func (v *vault) version(t *testing.T, path string) int {
	t.Helper()
	s, err := v.admin.SecretMetadata(t.Context(), path)
	if err != nil {
		t.Fatalf("look at %s: %v", path, err)
	}
	return s.Version
}

// rotates waits for the secret's version.
func (v *vault) rotates(t *testing.T, path string, to int) {
	t.Helper()
	eventually(t, 2*time.Minute, fmt.Sprintf("%s has version %d", path, to), func() bool { return v.version(t, path) >= to })
}

func (v *vault) rotationPolicy(t *testing.T, interval time.Duration, path string) api.RotationPolicy {
	t.Helper()
	every := api.Duration(interval)
	p, err := v.admin.CreateRotationPolicy(t.Context(), api.RotationPolicyRequest{Name: "often", Interval: &every})
	if err == nil {
		_, err = v.admin.AssignRotation(t.Context(), p.ID, path)
	}
	if err != nil {
		t.Fatalf("put %s under a rotation policy: %v", path, err)
	}
	return p
}

// shared is a vault of several nodes on one store.
func shared(t *testing.T, count int) (*vault, []*client.Client) {
	t.Helper()
	server := pgtest.Shared(t, 15)
	nodes := vaulttest.StartNodes(t, vaulttest.Program(t), count, server.SuperURL(server.CreateDB(t)))
	v := &vault{Server: nodes[0], admin: nodes[0].Admin(t)}
	v.allow(t, "engines", "system", "system:dynamic-engines",
		api.PolicyRule{PathPattern: "infra/**", Permissions: []api.Permission{"read", "rotate"}})
	var all []*client.Client
	for _, n := range nodes {
		all = append(all, n.Admin(t))
	}
	return v, all
}

// A root secret under a rotation policy is rotated at its source, under load, and no caller notices. By
// the schedule, and by order of the policy and of the secret: it is the same rotation.
func TestRootUnderARotationPolicy(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Shared(t, 17), functions)
	v.engine(t, s, "db", nil)
	v.role(t, "db", reader("reader"))
	path := rootPath("db")
	stop := v.callers(t, []*client.Client{v.admin}, 16)

	scheduled := size(1, 10)
	p := v.rotationPolicy(t, time.Duration(size(10, 30))*time.Second, path)
	for n := range scheduled {
		v.rotates(t, path, n+2)
	}
	if _, err := v.admin.DisableRotationPolicy(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	version := v.version(t, path)
	if r, err := v.admin.RotateByPolicy(t.Context(), p.ID); err != nil || r.Scheduled != 1 {
		t.Fatalf("rotate by the policy: %+v, %v", r, err)
	}
	v.rotates(t, path, version+1)
	rotated, err := v.admin.RotateSecret(t.Context(), path, api.SecretRotate{})
	if err != nil || rotated.Version != version+2 {
		t.Fatalf("rotate by the secret: version %d, %v", rotated.Version, err)
	}
	issued := stop()
	v.rootWorks(t, s, "db", version+2)
	if err := s.tryLogin(credential{username: s.root, password: s.password}); !refusedLogin(err) {
		t.Errorf("the first password still works: %v", err)
	}
	t.Logf("%d rotations by the schedule, %d credentials issued meanwhile, none failed", version-1, issued)
}

// Three nodes of one store rotate once per interval, not three times.
func TestScheduleOfSeveralNodes(t *testing.T) {
	t.Parallel()
	v, nodes := shared(t, 3)
	s := newSource(t, pgtest.Shared(t, 17), functions)
	v.engine(t, s, "db", nil)
	v.role(t, "db", reader("reader"))
	path := rootPath("db")
	stop := v.callers(t, nodes, 6)
	const interval = 10 * time.Second
	began := time.Now()
	v.rotationPolicy(t, interval, path)
	rounds := size(1, 6)
	v.rotates(t, path, rounds+1)
	version, took := v.version(t, path), time.Since(began)
	stop()
	// Each is at most a twentieth early, so that more than these cannot have come by schedule.
	if most := int(took/(interval-interval/20)) + 1; version > most {
		t.Errorf("version %d after %s", version, took)
	}
	entries, err := client.Collect(v.admin.AuditLogs(t.Context(), client.AuditFilter{Action: "rotate", IdentityID: "system:rotation"}))
	if err != nil {
		t.Fatal(err)
	}
	succeeded := 0
	for _, e := range entries {
		if e.Success {
			succeeded++
		} else if e.ExtraData["error"] != "version_conflict" {
			t.Errorf("a rotation failed: %+v", e)
		}
	}
	if succeeded != v.version(t, path)-1 {
		t.Errorf("%d entries of rotations for %d", succeeded, v.version(t, path)-1)
	}
	v.rootWorks(t, s, "db", v.version(t, path))
}

// Many on several nodes rotate the same root at once: each accepted request has written one version,
// the others are told to try again, callers notice nothing, and the root is known.
func TestRotationsAtOnceOnSeveralNodes(t *testing.T) {
	t.Parallel()
	v, nodes := shared(t, 2)
	s := newSource(t, pgtest.Shared(t, 17), functions)
	v.engine(t, s, "db", nil)
	v.role(t, "db", reader("reader"))
	path := rootPath("db")
	stop := v.callers(t, nodes, 8)
	var accepted, refused atomic.Int64
	var rotators sync.WaitGroup
	for i := range 4 {
		c := nodes[i%2]
		rotators.Go(func() {
			for done := 0; done < size(5, 50) && !t.Failed(); {
				var err error
				if i < 2 {
					_, err = c.RotateRoot(t.Context(), "db")
				} else {
					_, err = c.RotateSecret(context.WithoutCancel(t.Context()), path, api.SecretRotate{})
				}
				switch {
				case err == nil:
					accepted.Add(1)
					done++
				case errors.Is(err, client.VersionConflict):
					refused.Add(1)
				default:
					t.Errorf("a rotation failed: %v", err)
				}
			}
		})
	}
	rotators.Wait()
	issued := stop()
	if refused.Load() == 0 {
		t.Error("the rotations were never at once")
	}
	v.rootWorks(t, s, "db", 1+int(accepted.Load()))
	t.Logf("%d rotations accepted, %d refused, %d credentials issued meanwhile", accepted.Load(), refused.Load(), issued)
}
