package ssh_test

import (
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/internal/statement"
)

// TestOneTimePassword: it is for one account of one host, by whatever form its address is written in, and
// what is kept of it does not give it away.
func TestOneTimePassword(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, otp))
	r := newRole(t, onlyDeploy.with(fields{"allowed_users": []string{"deploy", "web"}, "port": 2222}))
	p, recipe := issue(t, e, r, fields{"ip": "10.1.2.3", "username": "deploy"})
	if p.Data["username"] != "deploy" || p.Data["ip"] != "10.1.2.3" || p.Data["port"] != "2222" {
		t.Errorf("%s", p.Data["username"].Reveal())
	}
	password := p.Data["otp"].Reveal()
	if (ssh.Type{}).NameIn(p.Data["otp"]) != p.Username {
		t.Errorf("%s is found as %s", p.Username, ssh.Type{}.NameIn(p.Data["otp"]))
	}
	_, secret, _ := strings.Cut(password, "-")
	if len(secret) < 26 || strings.Contains(string(recipe), secret) {
		t.Errorf("the secret has %d characters, or is kept: %s", len(secret), recipe)
	}
	for name, tt := range map[string]struct {
		password, user, address string
		want                    bool
	}{
		"right":                 {password, "deploy", "10.1.2.3", true},
		"in another form":       {password, "deploy", "::ffff:10.1.2.3", true},
		"another host":          {password, "deploy", "10.1.2.4", false},
		"no address":            {password, "deploy", "web.example.com", false},
		"another account":       {password, "web", "10.1.2.3", false},
		"no account":            {password, "", "10.1.2.3", false},
		"the name alone":        {p.Username, "deploy", "10.1.2.3", false},
		"half":                  {password[:len(password)-1], "deploy", "10.1.2.3", false},
		"more":                  {password + "A", "deploy", "10.1.2.3", false},
		"in small letters":      {strings.ToLower(password), "deploy", "10.1.2.3", false},
		"a space":               {password + " ", "deploy", "10.1.2.3", false},
		"the hash in its place": {p.Username + "-" + hashIn(t, recipe), "deploy", "10.1.2.3", false},
	} {
		if got := (ssh.Type{}).Accepts(recipe, engine.Presented{Secret: statement.Secret(tt.password), Username: tt.user, Address: tt.address}); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if (ssh.Type{}).Accepts(p.Recipe, engine.Presented{Secret: p.Data["otp"], Username: "deploy", Address: "10.1.2.3"}) {
		t.Error("one that was not given out is accepted")
	}
}

// TestBoundToTheClient: a password that was asked for with the client's address is good from there alone.
func TestBoundToTheClient(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, otp))
	p, recipe := issue(t, e, newRole(t, onlyDeploy), fields{"ip": "10.1.2.3", "client_ip": "::ffff:192.0.2.7"})
	if p.Data["client_ip"] != "192.0.2.7" {
		t.Errorf("it is for %s", p.Data["client_ip"].Reveal())
	}
	for from, want := range map[string]bool{"192.0.2.7": true, "::ffff:192.0.2.7": true, "192.0.2.8": false, "": false, "client.example.com": false} {
		if got := (ssh.Type{}).Accepts(recipe, engine.Presented{Secret: p.Data["otp"], Username: "deploy", Address: "10.1.2.3", Client: from}); got != want {
			t.Errorf("from %q: %t", from, got)
		}
	}
	required := newRole(t, onlyDeploy.with(fields{"require_client_ip": true}))
	for _, wish := range []fields{{"ip": "10.1.2.3"}, {"ip": "10.1.2.3", "client_ip": "laptop"}} {
		if _, err := plan(t, e, required, wish); engine.KindOf(err) != engine.Refused {
			t.Errorf("%v: %v", wish, err)
		}
	}
	if _, err := plan(t, e, required, fields{"ip": "10.1.2.3", "client_ip": "192.0.2.7"}); err != nil {
		t.Error(err)
	}
}

func hashIn(t *testing.T, r engine.Recipe) string {
	t.Helper()
	_, rest, _ := strings.Cut(string(r), `"otp_sha256":"`)
	hash, _, _ := strings.Cut(rest, `"`)
	if len(hash) != 64 {
		t.Fatalf("there is no hash in %s", r)
	}
	return hash
}

func TestOneTimePasswordRefused(t *testing.T) {
	t.Parallel()
	e, r := open(t, newOptions(t, otp)), newRole(t, onlyDeploy)
	for name, wish := range map[string]fields{
		"no host": {}, "another network": {"ip": "192.0.2.1"}, "a name": {"ip": "web.example.com"}, "a network": {"ip": "10.0.0.0/8"},
		"another account": {"ip": "10.1.2.3", "username": "root"}, "two accounts": {"ip": "10.1.2.3", "username": "deploy,deploy"}, "a number": {"ip": 1},
	} {
		if _, err := plan(t, e, r, wish); engine.KindOf(err) != engine.Refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	for address, want := range map[string]string{"2001:db8::1": "2001:db8::1", "2001:DB8:0::1": "2001:db8::1", "::ffff:10.9.9.9": "10.9.9.9"} {
		if p, err := plan(t, e, r, fields{"ip": address}); err != nil || p.Data["ip"].Reveal() != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}
