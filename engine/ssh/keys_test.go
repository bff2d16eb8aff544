package ssh_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	driver "golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/statement"
)

// versions of a root secret, as the server keeps them.
type versions []engine.RootVersion

func (v versions) since(_ context.Context, since time.Time) ([]engine.RootVersion, error) {
	var found []engine.RootVersion
	for _, one := range slices.Backward(v) {
		if n := len(found); n > 0 && found[n-1].Since.Before(since) {
			break
		}
		found = append(found, one)
	}
	return found, nil
}

func (v versions) open(t *testing.T, o engine.Options) *ssh.Engine {
	t.Helper()
	o.Root, o.Roots = v[len(v)-1].Fields, v.since
	return open(t, o)
}

// TestRotatedKey follows a CA through a rotation: the new key is published at once and signs when every
// host has had the time to fetch it; the former is published until the last of its certificates has ended.
// The node that has rotated and one that reads it from the store do the same.
func TestRotatedKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		options := newOptions(t, ca.with(fields{"krl_max_age": "10m"}))
		options.MaxTTL = 2 * time.Hour
		r := newRole(t, deploy)
		_, line := newKey(t)
		kept := versions{{Fields: options.Root, Since: time.Now()}}
		e := kept.open(t, options)
		first := kept[0].Fields["public_key"]

		check := func(when string, e *ssh.Engine, signs statement.Secret, published ...statement.Secret) {
			t.Helper()
			p, _ := issue(t, e, r, fields{"public_key": line})
			if got := strings.TrimSpace(string(driver.MarshalAuthorizedKey(certificate(t, p.Data).SignatureKey))); got != signs.Reveal() {
				t.Errorf("%s: another key signs", when)
			}
			var want strings.Builder
			for _, key := range published {
				want.WriteString(key.Reveal() + " hosts\n")
			}
			if got := e.PublicKeys(); !bytes.Equal(got, []byte(want.String())) {
				t.Errorf("%s: published are\n%swant\n%s", when, got, want.String())
			}
		}
		check("at first", e, first, first)

		time.Sleep(48 * time.Hour)
		candidate, err := e.PlanRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		second := candidate["public_key"]
		for range 2 {
			if err := e.SetRoot(t.Context(), candidate); err != nil {
				t.Fatal(err)
			}
		}
		kept = append(kept, engine.RootVersion{Fields: candidate, Since: time.Now()})
		begun := time.Now()
		for _, step := range []struct {
			when      string
			after     time.Duration
			signs     statement.Secret
			published []statement.Secret
		}{
			{"at once", 0, first, []statement.Secret{second, first}},
			{"before it signs", 10 * time.Minute, first, []statement.Secret{second, first}},
			{"when it signs", 10*time.Minute + engine.ListAge, second, []statement.Secret{second, first}},
			{"before the last has ended", 2*time.Hour + 10*time.Minute + engine.ListAge, second, []statement.Secret{second, first}},
			{"when the last has ended", 2*time.Hour + 12*time.Minute, second, []statement.Secret{second}},
		} {
			time.Sleep(time.Until(begun.Add(step.after)))
			check(step.when, e, step.signs, step.published...)
			check(step.when+", another node", kept.open(t, options), step.signs, step.published...)
		}
	})
}

// Rotated faster than hosts fetch, no key signs that they may not know.
func TestRotatedTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		options := newOptions(t, ca)
		r := newRole(t, deploy)
		_, line := newKey(t)
		kept := versions{{Fields: options.Root, Since: time.Now()}}
		time.Sleep(time.Hour)
		for range 3 {
			time.Sleep(4 * time.Minute) // krl_max_age is 5m
			kept = append(kept, engine.RootVersion{Fields: newRoot(t, ca), Since: time.Now()})
		}
		begun := time.Now()
		for _, step := range []struct {
			after time.Duration
			signs int
		}{{0, 1}, {2 * time.Minute, 2}, {6 * time.Minute, 3}} {
			time.Sleep(time.Until(begun.Add(step.after)))
			e := kept.open(t, options)
			p, _ := issue(t, e, r, fields{"public_key": line})
			want := kept[step.signs].Fields["public_key"].Reveal()
			if got := strings.TrimSpace(string(driver.MarshalAuthorizedKey(certificate(t, p.Data).SignatureKey))); got != want {
				t.Errorf("after %s version %d does not sign", step.after, step.signs)
			}
			if n := bytes.Count(e.PublicKeys(), []byte("\n")); n != 4 {
				t.Errorf("after %s %d keys are published", step.after, n)
			}
		}
	})
}

// TestChangedTerms: what has become of a key stands when the settings change. A former key comes back with
// no setting, and none is taken from hosts while a certificate of it lives.
func TestChangedTerms(t *testing.T) {
	t.Parallel()
	const lead, day = 5*time.Minute + engine.ListAge, 24 * time.Hour
	for name, c := range map[string]struct {
		changed time.Duration // after the rotation
		config  fields
		before  time.Duration // max_ttl
		after   time.Duration
		looked  time.Duration // after the rotation
		signs   int
		keys    int
	}{
		"krl_max_age raised":                  {20 * time.Hour, fields{"krl_max_age": "24h"}, 8 * time.Hour, 8 * time.Hour, 20 * time.Hour, 1, 1},
		"max_ttl raised":                      {20 * time.Hour, nil, 8 * time.Hour, 48 * time.Hour, 20 * time.Hour, 1, 1},
		"max_ttl raised before the new signs": {time.Minute, nil, 8 * time.Hour, day, lead + 23*time.Hour, 1, 2},
		"max_ttl lowered before":              {-time.Hour, nil, day, time.Hour, 22 * time.Hour, 1, 2},
		"max_ttl lowered before, at the end":  {-time.Hour, nil, day, time.Hour, 23*time.Hour + 2*time.Minute, 1, 1},
		"max_ttl lowered after":               {time.Hour, nil, day, time.Hour, 23 * time.Hour, 1, 2},
		"krl_max_age lowered":                 {time.Second, fields{"krl_max_age": "1s"}, day, day, 4 * time.Minute, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				options := newOptions(t, ca.with(c.config))
				options.MaxTTL = c.after
				rotated := time.Now().Add(72 * time.Hour)
				options.KeyTerms = []engine.KeyTerms{
					{Lead: duration.Duration(lead), MaxTTL: duration.Duration(c.before)},
					{From: rotated.Add(c.changed), Lead: duration.Duration(leadOf(t, options)), MaxTTL: duration.Duration(c.after)},
				}
				kept := versions{{Fields: options.Root, Since: time.Now()}, {Fields: newRoot(t, ca), Since: rotated}}
				time.Sleep(time.Until(rotated.Add(c.looked)))
				e := kept.open(t, options)
				_, line := newKey(t)
				p, _ := issue(t, e, newRole(t, deploy), fields{"public_key": line})
				if got, want := strings.TrimSpace(string(driver.MarshalAuthorizedKey(certificate(t, p.Data).SignatureKey))), kept[c.signs].Fields["public_key"].Reveal(); got != want {
					t.Error("another key signs")
				}
				if n := bytes.Count(e.PublicKeys(), []byte("\n")); n != c.keys {
					t.Errorf("%d keys are published, want %d", n, c.keys)
				}
			})
		})
	}
}

func leadOf(t *testing.T, o engine.Options) time.Duration {
	t.Helper()
	c, err := ssh.Type{}.ParseConfig(o.Config)
	if err != nil {
		t.Fatal(err)
	}
	return c.KeyLead
}

// A revoked certificate is dead when every host has fetched the list, or when it has ended.
func TestEffectiveAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := open(t, newOptions(t, ca))
		_, line := newKey(t)
		p, recipe := issue(t, e, newRole(t, deploy), fields{"public_key": line})
		want := func(when string, r engine.Recipe, after time.Duration) {
			t.Helper()
			o, err := e.Revoke(t.Context(), r)
			switch {
			case err != nil:
				t.Errorf("%s: %v", when, err)
			case after == 0 && o.EffectiveAt != nil:
				t.Errorf("%s: dead at %s", when, o.EffectiveAt)
			case after != 0 && (o.EffectiveAt == nil || !o.EffectiveAt.Equal(time.Now().Add(after))):
				t.Errorf("%s: dead at %v", when, o.EffectiveAt)
			}
		}
		want("nobody was given it", p.Recipe, 0)
		want("it was given", recipe, 5*time.Minute+engine.ListAge)
		time.Sleep(58 * time.Minute)
		want("near its end", recipe, 2*time.Minute)
		time.Sleep(2 * time.Minute)
		want("at its end", recipe, 0)
	})
}

// Health tells which key signs, and which will.
func TestHealth(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, ca))
	h := e.Check(t.Context())
	if h.Status != "healthy" || !strings.HasPrefix(h.Details["ca_key"], "SHA256:") || h.Details["ca_key_type"] != "ssh-ed25519" || h.Details["trusted_keys"] != "1" {
		t.Errorf("%+v", h)
	}
	if err := e.SetRoot(t.Context(), newRoot(t, ca.with(fields{"key_type": "ecdsa-p384"}))); err != nil {
		t.Fatal(err)
	}
	next := e.Check(t.Context())
	if next.Details["ca_key"] != h.Details["ca_key"] || next.Details["next_ca_key"] == "" || next.Details["next_ca_key_signs_from"] == "" || next.Details["trusted_keys"] != "2" {
		t.Errorf("%+v", next)
	}
	if h := open(t, newOptions(t, otp)).Check(t.Context()); h.Status != "healthy" || h.Details["mode"] != "otp" {
		t.Errorf("%+v", h)
	}
}
