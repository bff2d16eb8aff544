package source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/policy"
)

// TestFormerKeyStaysFormer: no change of settings publishes a key again that hosts were told to forget,
// after a restart neither, and no other engine of the same root does.
func TestFormerKeyStaysFormer(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"hosts", "others"} {
			w.bind("dynamic:"+name, policy.Rule{PathPattern: "ssh/**", Permissions: []policy.Permission{policy.Read, policy.Rotate}})
		}
		ctx := context.Background()
		create := func(name, config string, life time.Duration) {
			t.Helper()
			_, err := w.sources.CreateEngine(ctx, w.admin, &api.EngineRequest{Name: name, Type: "ssh",
				Config: json.RawMessage(config), MaxTTL: new(api.Duration(life))})
			w.must(err)
		}
		published := func(name string) [][]byte {
			t.Helper()
			keys, err := w.sources.PublicKeys(ctx, tenant, name)
			w.must(err)
			return bytes.Split(bytes.TrimSpace(keys), []byte("\n"))
		}
		patch := func(p *api.EnginePatch) {
			t.Helper()
			_, _, err := w.sources.PatchEngine(ctx, w.admin, "hosts", p, false, time.Second)
			w.must(err)
		}
		create("hosts", `{}`, 8*time.Hour)
		time.Sleep(time.Hour)
		_, err := w.sources.RotateRoot(ctx, w.admin, "hosts")
		w.must(err)
		if n := len(published("hosts")); n != 2 {
			t.Fatalf("%d keys are published at once", n)
		}
		patch(&api.EnginePatch{MaxTTL: new(api.Duration(time.Minute))})
		time.Sleep(8 * time.Hour)
		if n := len(published("hosts")); n != 2 {
			t.Errorf("%d keys are published while certificates of the former key live", n)
		}
		time.Sleep(12 * time.Hour)
		present := published("hosts")
		if len(present) != 1 {
			t.Fatalf("%d keys are published in the end", len(present))
		}
		only := func(when, name string) {
			t.Helper()
			keys := published(name)
			if len(keys) != 1 || !bytes.HasPrefix(keys[0], bytes.TrimSuffix(present[0], []byte("hosts"))) {
				t.Errorf("%s published are %d keys", when, len(keys))
			}
		}
		patch(&api.EnginePatch{Config: map[string]json.RawMessage{"krl_max_age": []byte(`"24h"`)}})
		only("krl_max_age raised", "hosts")
		patch(&api.EnginePatch{MaxTTL: new(api.Duration(480 * time.Hour))})
		only("max_ttl raised", "hosts")
		w.restart()
		only("after a restart", "hosts")
		create("others", `{"root_credentials_path": "ssh/hosts/ca"}`, 480*time.Hour)
		only("by another engine", "others")

		time.Sleep(500 * time.Hour)
		patch(&api.EnginePatch{MaxTTL: new(api.Duration(960 * time.Hour))})
		only("when the first terms are no longer kept", "hosts")
	})
}

// TestLargeList: health tells of a list of what is revoked that becomes too large for hosts.
func TestLargeList(t *testing.T) {
	inWorld(t, func(w *world) {
		w.bind("dynamic:hosts", policy.Rule{PathPattern: "ssh/**", Permissions: []policy.Permission{policy.Read, policy.Rotate}})
		ctx := context.Background()
		_, err := w.sources.CreateEngine(ctx, w.admin, &api.EngineRequest{Name: "hosts", Type: "ssh", Config: json.RawMessage(`{}`)})
		w.must(err)
		for size, warned := range map[int]bool{0: false, 8<<20 - 1: false, 8 << 20: true} {
			if w.list = nil; size > 0 {
				w.list = make([]byte, size)
			}
			h, err := w.sources.Health(ctx, w.admin, "hosts")
			w.must(err)
			if h.Status != api.EngineHealthy || h.Details["listed_as_revoked"] != "0" || (len(h.Warnings) == 1) != warned {
				t.Errorf("with a list of %d bytes: %+v", size, h)
			}
			for _, warning := range h.Warnings {
				if !strings.Contains(warning, "8 MiB") {
					t.Errorf("the warning is %s", warning)
				}
			}
		}
	})
}
