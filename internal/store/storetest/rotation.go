package storetest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

func paths(secrets []*store.Secret) []string {
	list := []string{}
	for _, s := range secrets {
		list = append(list, s.Path)
	}
	return list
}

func secretRotation(t *testing.T, b *bundle) {
	put := func(tenant, path, policy string, rotate, due *time.Time) {
		t.Helper()
		b.write(t, func(tx store.Tx) error {
			return tx.PutSecret(&store.Secret{Tenant: tenant, Path: path, CreatedAt: noon, UpdatedAt: noon,
				RotationPolicy: policy, RotateAt: rotate, RotateDueAt: due})
		})
	}
	put(tenant, "late", "rot_1", atp(-time.Hour), atp(2*time.Minute)) // its last try failed
	put(tenant, "soon", "rot_1", atp(time.Hour), atp(time.Minute))
	put(tenant, "off", "rot_2", nil, nil)
	put(tenant, "plain", "", nil, nil)
	put("tnt_2", "other", "rot_1", atp(-time.Minute), atp(0))
	b.reopen(t)

	b.read(t, func(r store.Reader) {
		got := value[[]*store.Secret](t)(r.SecretsToRotate(0))
		wantEqual(t, "to rotate", paths(got), []string{"other", "soon", "late"})
		wantEqual(t, "row", got[1], &store.Secret{Tenant: tenant, Path: "soon", CreatedAt: noon, UpdatedAt: noon,
			RotationPolicy: "rot_1", RotateAt: atp(time.Hour), RotateDueAt: atp(time.Minute), Doc: got[1].Doc})
		wantEqual(t, "first", paths(value[[]*store.Secret](t)(r.SecretsToRotate(1))), []string{"other"})
		wantEqual(t, "of a policy", paths(value[[]*store.Secret](t)(r.SecretsOfPolicy(tenant, "rot_1", "", 0))), []string{"late", "soon"})
		wantEqual(t, "after", paths(value[[]*store.Secret](t)(r.SecretsOfPolicy(tenant, "rot_1", "late", 1))), []string{"soon"})
		wantEqual(t, "of none", paths(value[[]*store.Secret](t)(r.SecretsOfPolicy(tenant, "", "", 0))), []string{})
		wantEqual(t, "counts", value[map[string]int64](t)(r.RotationCounts(tenant)), map[string]int64{"rot_1": 2, "rot_2": 1})
		n, oldest, err := r.RotationsDue(noon)
		must(t, err)
		wantEqual(t, "due", fmt.Sprint(n, oldest), fmt.Sprint(2, at(-time.Hour)))
		n, _, err = r.RotationsDue(at(-2 * time.Hour))
		must(t, err)
		wantEqual(t, "due before", n, 0)
	})

	b.write(t, func(tx store.Tx) error { return tx.RescheduleSecrets(tenant, "rot_2", at(-time.Second)) })
	b.write(t, func(tx store.Tx) error { return tx.RescheduleSecrets(tenant, "", at(-time.Second)) }) // none has no policy
	b.read(t, func(r store.Reader) {
		wantEqual(t, "rescheduled", paths(value[[]*store.Secret](t)(r.SecretsToRotate(0))), []string{"off", "other", "soon", "late"})
	})
	put(tenant, "off", "", nil, nil)
	b.read(t, func(r store.Reader) {
		wantEqual(t, "taken out", paths(value[[]*store.Secret](t)(r.SecretsToRotate(0))), []string{"other", "soon", "late"})
		wantEqual(t, "counts", value[map[string]int64](t)(r.RotationCounts(tenant)), map[string]int64{"rot_1": 2})
	})
}

// Many take what is due at once: who moves the moment in the transaction in which it reads it has it
// alone.
func secretRotationTaken(t *testing.T, b *bundle) {
	const secrets, takers = 5, 8
	for i := range secrets {
		b.write(t, func(tx store.Tx) error {
			return tx.PutSecret(&store.Secret{Tenant: tenant, Path: fmt.Sprint("s", i), RotationPolicy: "rot_1", RotateDueAt: atp(0)})
		})
	}
	var mu sync.Mutex
	taken := map[string]int{}
	var wg sync.WaitGroup
	for range takers {
		for i := range secrets {
			path := fmt.Sprint("s", i)
			wg.Go(func() {
				mine := false
				err := b.Write(t.Context(), func(tx store.Tx) error {
					mine = false
					s, err := tx.Secret(tenant, path)
					if err != nil || s.RotateDueAt.After(noon) {
						return err
					}
					mine, s.RotateDueAt = true, atp(time.Minute)
					return tx.PutSecret(s)
				})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				} else if mine {
					taken[path]++
				}
			})
		}
	}
	wg.Wait()
	wantEqual(t, "taken", slices.Sorted(maps.Values(taken)), []int{1, 1, 1, 1, 1})
}
