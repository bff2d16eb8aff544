package ssh_test

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	driver "golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// TestCertificate reads what was signed, by each kind of key.
func TestCertificate(t *testing.T) {
	t.Parallel()
	for _, keyType := range []string{"ed25519", "ecdsa-p256", "ecdsa-p384", "rsa-3072"} {
		t.Run(keyType, func(t *testing.T) {
			t.Parallel()
			options := newOptions(t, ca.with(fields{"key_type": keyType}))
			e := open(t, options)
			r := newRole(t, deploy.with(fields{"extensions": fields{"permit-pty": ""}, "critical_options": fields{"source-address": "10.0.0.0/8"}}))
			_, line := newKey(t)
			p, recipe := issue(t, e, r, fields{"public_key": line})
			c := certificate(t, p.Data)
			if !bytes.HasPrefix([]byte(line), []byte(strings.TrimSpace(string(driver.MarshalAuthorizedKey(c.Key))))) {
				t.Error("it is for another key")
			}
			if !bytes.Contains(e.PublicKeys(), bytes.TrimSpace(driver.MarshalAuthorizedKey(c.SignatureKey))) {
				t.Error("its CA is not published")
			}
			if keyType[:3] == "rsa" && c.Signature.Format != driver.KeyAlgoRSASHA512 {
				t.Errorf("signed by %s", c.Signature.Format)
			}
			if c.CertType != driver.UserCert || !slices.Equal(c.ValidPrincipals, []string{"deploy"}) ||
				!maps.Equal(c.Extensions, map[string]string{"permit-pty": ""}) || !maps.Equal(c.CriticalOptions, map[string]string{"source-address": "10.0.0.0/8"}) {
				t.Errorf("it says %+v", c)
			}
			if c.KeyId != p.LeaseID+" sa:ci" || strconv.FormatUint(c.Serial, 10) != p.Username || p.Data["serial_number"].Reveal() != p.Username {
				t.Errorf("key id %q, serial %d, name %s", c.KeyId, c.Serial, p.Username)
			}
			if end := time.Unix(int64(c.ValidBefore), 0); end.After(p.ExpiresAt) || p.ExpiresAt.Sub(end) >= time.Second {
				t.Errorf("it ends at %s, the lease at %s", end, p.ExpiresAt)
			}
			if since := time.Until(time.Unix(int64(c.ValidAfter), 0)); since > 0 || since < -2*time.Minute {
				t.Errorf("it begins in %s", since)
			}
			if !bytes.Contains(recipe, []byte(p.Username)) {
				t.Errorf("the recipe lacks the serial: %s", recipe)
			}
		})
	}
}

// TestPrincipals: a certificate is for exactly who was asked for, if the role allows them all, and never
// for nobody, which would be everybody.
func TestPrincipals(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, ca))
	_, line := newKey(t)
	several := fields{"allowed_users": []string{"a", "b", "c"}}
	hosts := fields{"cert_type": "host", "allowed_domains": []string{"db.example.com", "*.web.example.com"}}
	for name, tt := range map[string]struct {
		role  fields
		asked any
		want  []string // nil for a refusal
	}{
		"default":             {deploy, nil, []string{"deploy"}},
		"the other":           {deploy, "web", []string{"web"}},
		"both":                {deploy, "web,deploy", []string{"web", "deploy"}},
		"all":                 {several, nil, []string{"a", "b", "c"}},
		"the only one":        {fields{"default_user": "x"}, nil, []string{"x"}},
		"an empty wish":       {deploy, "", []string{"deploy"}},
		"another":             {deploy, "root", nil},
		"one more":            {deploy, "deploy,root", nil},
		"one and nothing":     {deploy, "deploy,", nil},
		"nothing but a comma": {deploy, ",", nil},
		"twice":               {deploy, "deploy,deploy", nil},
		"with a space":        {deploy, "deploy, web", nil},
		"a list":              {deploy, []string{"deploy"}, nil},
		"very many":           {deploy, strings.Repeat("deploy,", 10_000), nil},
		"host":                {hosts, "db.example.com", []string{"db.example.com"}},
		"host below":          {hosts, "1.web.example.com", []string{"1.web.example.com"}},
		"host far below":      {hosts, "a.b.web.example.com", []string{"a.b.web.example.com"}},
		"hosts":               {hosts, "db.example.com,x.web.example.com", []string{"db.example.com", "x.web.example.com"}},
		"no host":             {hosts, nil, nil},
		"host above":          {hosts, "web.example.com", nil},
		"host beside":         {hosts, "xweb.example.com", nil},
		"host below another":  {hosts, "x.db.example.com", nil},
		"every host":          {hosts, "*.web.example.com", nil},
		"host in capitals":    {hosts, "DB.example.com", nil},
		"host and a dot":      {hosts, "db.example.com.", nil},
	} {
		wish := fields{"public_key": line}
		if tt.asked != nil {
			wish["username"] = tt.asked
		}
		p, err := plan(t, e, newRole(t, tt.role), wish)
		if tt.want == nil {
			if engine.KindOf(err) != engine.Refused {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil {
			_, err = e.Issue(t.Context(), p)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c := certificate(t, p.Data)
		if !slices.Equal(c.ValidPrincipals, tt.want) || (c.CertType == driver.HostCert) != (tt.role["cert_type"] == "host") {
			t.Errorf("%s: %v, kind %d", name, c.ValidPrincipals, c.CertType)
		}
	}
}

// TestExtensions: what a caller may ask for is what the role says, with the values there.
func TestExtensions(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, ca))
	_, line := newKey(t)
	r := newRole(t, deploy.with(fields{"extensions": fields{"permit-pty": "", "login@example.com": "x"}, "allowed_extensions": []string{"permit-user-rc"}}))
	for name, tt := range map[string]struct {
		asked any
		want  map[string]string
	}{
		"default":       {nil, map[string]string{"permit-pty": "", "login@example.com": "x"}},
		"none":          {fields{}, map[string]string{}},
		"one of each":   {fields{"permit-pty": "", "permit-user-rc": ""}, map[string]string{"permit-pty": "", "permit-user-rc": ""}},
		"another":       {fields{"permit-port-forwarding": ""}, nil},
		"another value": {fields{"login@example.com": "y"}, nil},
		"a value":       {fields{"permit-user-rc": "x"}, nil},
		"an option":     {fields{"force-command": ""}, nil},
	} {
		wish := fields{"public_key": line}
		if tt.asked != nil {
			wish["extensions"] = tt.asked
		}
		p, err := plan(t, e, r, wish)
		if tt.want == nil {
			if engine.KindOf(err) != engine.Refused {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil {
			_, err = e.Issue(t.Context(), p)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if c := certificate(t, p.Data); !maps.Equal(c.Extensions, tt.want) {
			t.Errorf("%s: %v", name, c.Extensions)
		}
	}
}

// A key is made only where the role says so, for who sends none.
func TestGeneratedKey(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, ca))
	_, line := newKey(t)
	makes := newRole(t, deploy.with(fields{"generate_key": true}))
	for name, wish := range map[string]fields{
		"of a role that makes none": {"generate_key": true}, "of one that was not asked": {}, "both": {"generate_key": true, "public_key": line},
	} {
		r := newRole(t, deploy)
		if name == "both" {
			r = makes
		}
		if _, err := plan(t, e, r, wish); engine.KindOf(err) != engine.Refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	issue(t, e, makes, fields{"generate_key": true})
	p, recipe := issue(t, e, makes, fields{})
	key, err := driver.ParsePrivateKey([]byte(p.Data["private_key"].Reveal()))
	if err != nil {
		t.Fatalf("read the private key: %v", err)
	}
	if c := certificate(t, p.Data); !bytes.Equal(c.Key.Marshal(), key.PublicKey().Marshal()) ||
		p.Data["public_key"].Reveal() != strings.TrimSpace(string(driver.MarshalAuthorizedKey(key.PublicKey()))) {
		t.Error("the certificate is for another key")
	}
	if bytes.Contains(recipe, []byte("PRIVATE")) {
		t.Error("the recipe holds the key")
	}
}

// An identity is shown in the log of every host that it logs in to: it cannot write lines of its own there.
func TestKeyID(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, ca))
	_, line := newKey(t)
	for identity, want := range map[string]string{
		"sa:ci": "sa:ci", "user:a\nb": "user:a?b", "user:ü x": "user:???x", strings.Repeat("a", 500): strings.Repeat("a", 128), "{{role}}": "{{role}}",
	} {
		lease := ident.New(ident.Lease)
		p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: lease, RoleName: "deploy", Role: newRole(t, deploy.with(fields{"key_id_template": "{{engine}}/{{role}} {{lease_id}} {{identity}}"})),
			Identity: identity, ExpiresAt: time.Now().Add(time.Hour), Params: fields{"public_key": line}.raw(t)})
		if err != nil {
			t.Fatal(err)
		}
		p.Deadline = time.Now().Add(time.Minute)
		if _, err := e.Issue(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if c := certificate(t, p.Data); c.KeyId != "hosts/deploy "+lease+" "+want {
			t.Errorf("%q: %q", identity, c.KeyId)
		}
	}
}

// A role's test needs nothing from a caller.
func TestDryRun(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ config, role fields }{
		"user": {ca, deploy}, "host": {ca, fields{"cert_type": "host", "allowed_domains": []string{"*.example.com"}}}, "password": {otp, onlyDeploy},
	} {
		e := open(t, newOptions(t, tt.config))
		p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "deploy", Role: newRole(t, tt.role), DryRun: true, ExpiresAt: time.Now().Add(time.Minute)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p.Deadline = time.Now().Add(time.Minute)
		recipe, err := e.Issue(t.Context(), p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if found, err := e.Lookup(t.Context(), recipe); err != nil || found.State != engine.Usable {
			t.Errorf("%s is looked up as %d, %v", name, found.State, err)
		}
		if found, err := e.Lookup(t.Context(), p.Recipe); err != nil || found.State != engine.Absent {
			t.Errorf("%s that nobody was given is looked up as %d, %v", name, found.State, err)
		}
	}
}

// What a request says beyond what there is, is refused.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	_, line := newKey(t)
	for _, tt := range []struct{ config, role, wish fields }{
		{ca, deploy, fields{"public_key": line, "valid_principals": "root"}},
		{ca, deploy, fields{"public_key": line, "critical_options": fields{}}},
		{otp, onlyDeploy, fields{"ip": "10.1.2.3", "public_key": line}},
	} {
		if _, err := plan(t, open(t, newOptions(t, tt.config)), newRole(t, tt.role), tt.wish); engine.KindOf(err) != engine.Refused {
			t.Errorf("%v: %v", tt.wish, err)
		}
	}
}

// The key of the CA is nowhere but in its secret.
func TestErrorsHoldNoKey(t *testing.T) {
	t.Parallel()
	options := newOptions(t, ca)
	whole := options.Root["private_key"].Reveal()
	for name, root := range map[string]map[string]statement.Secret{
		"none": {}, "half": {"private_key": statement.Secret(whole[:len(whole)/2])}, "another": {"private_key": options.Root["private_key"], "public_key": newRoot(t, ca)["public_key"]},
		"public": {"private_key": options.Root["public_key"]},
	} {
		options := options
		options.Root = root
		_, err := openFailing(t, options)
		if engine.KindOf(err) != engine.Misconfigured || strings.Contains(err.Error(), whole[100:150]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
