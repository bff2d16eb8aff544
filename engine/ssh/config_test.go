package ssh_test

import (
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/internal/fault"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config fields
		says   string // of a refusal; "" for none
	}{
		"CA":                      {ca, ""},
		"CA, said":                {ca.with(fields{"mode": "ca", "key_type": "rsa-4096", "krl_max_age": "30s", "operation_timeout": "20s"}), ""},
		"passwords":               {otp, ""},
		"unknown field":           {ca.with(fields{"key_typ": "rsa-4096"}), "key_typ"},
		"unknown mode":            {fields{"mode": "dynamic"}, "mode"},
		"no key":                  {fields{"mode": "ca"}, "root_credentials_path"},
		"unknown key":             {ca.with(fields{"key_type": "dsa"}), "ecdsa-p256, ecdsa-p384, ed25519, rsa-3072, rsa-4096"},
		"passwords with a key":    {otp.with(ca), "root_credentials_path"},
		"passwords of a key type": {otp.with(fields{"key_type": "ed25519"}), "key_type"},
		"passwords with a list":   {otp.with(fields{"krl_max_age": "1m"}), "krl_max_age"},
		"a list of days":          {ca.with(fields{"krl_max_age": "2d"}), "krl_max_age"},
		"names":                   {ca.with(fields{"username_template": "x{{random:11}}"}), "username_template"},
		"reconcile":               {ca.with(fields{"reconcile": "report"}), "reconcile"},
		"a server":                {ca.with(fields{"source_id": "one"}), "source_id"},
		"a long operation":        {ca.with(fields{"operation_timeout": "6m"}), "operation_timeout"},
	} {
		taken, err := ssh.Type{}.ParseConfig(tt.config.raw(t))
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.says != "" && (fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v", name, err)
		case err == nil && (taken.Listed != (tt.config["mode"] != "otp") || taken.Reconcile != engine.ReconcileOff || taken.OperationTimeout == 0):
			t.Errorf("%s: %+v", name, taken)
		}
	}
}

func TestRootPath(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{}`: "ssh/hosts/ca", `{"mode": "ca"}`: "ssh/hosts/ca", `{"mode": "otp"}`: "",
		`{"root_credentials_path": "infra/ca"}`: "", `[]`: "",
	} {
		if got := (ssh.Type{}).RootPath("hosts", []byte(raw)); got != want {
			t.Errorf("%s: %q", raw, got)
		}
	}
}

// A role says what is wrong with it when it is saved, what contradicts the engine's mode included.
func TestRole(t *testing.T) {
	t.Parallel()
	host := fields{"cert_type": "host", "allowed_domains": []string{"*.example.com"}}
	for name, tt := range map[string]struct {
		mode, role fields
		says       string
	}{
		"users":                       {ca, deploy, ""},
		"hosts":                       {ca, host, ""},
		"passwords":                   {otp, onlyDeploy, ""},
		"all there is":                {ca, deploy.with(fields{"extensions": fields{"permit-pty": ""}, "allowed_extensions": []string{"permit-user-rc", "login@example.com"}, "critical_options": fields{"force-command": "/bin/true", "source-address": "10.0.0.0/8,192.0.2.1", "verify-required": ""}, "key_id_template": "{{engine}}-{{role}}-{{lease_id}}", "generate_key": true}), ""},
		"unknown field":               {ca, deploy.with(fields{"allowed_user": "x"}), "allowed_user"},
		"nobody":                      {ca, fields{}, "allowed_users"},
		"everybody":                   {ca, fields{"allowed_users": []string{"*"}}, "allowed_users"},
		"an empty name":               {ca, fields{"allowed_users": []string{""}}, "allowed_users"},
		"two names in one":            {ca, fields{"allowed_users": []string{"a,root"}}, "allowed_users"},
		"a long name":                 {ca, fields{"allowed_users": []string{strings.Repeat("a", 33)}}, "allowed_users"},
		"another default":             {ca, fields{"allowed_users": []string{"a"}, "default_user": "b"}, "default_user"},
		"unknown kind":                {ca, deploy.with(fields{"cert_type": "both"}), "cert_type"},
		"a user's domain":             {ca, deploy.with(fields{"allowed_domains": []string{"example.com"}}), "allowed_domains"},
		"hosts without a domain":      {ca, fields{"cert_type": "host"}, "allowed_domains"},
		"every host":                  {ca, host.with(fields{"allowed_domains": []string{"*"}}), "allowed_domains"},
		"half a label":                {ca, host.with(fields{"allowed_domains": []string{"web*.example.com"}}), "allowed_domains"},
		"a host with users":           {ca, host.with(fields{"allowed_users": []string{"root"}}), "allowed_users"},
		"a host with options":         {ca, host.with(fields{"extensions": fields{"permit-pty": ""}}), "extensions"},
		"a host's key":                {ca, host.with(fields{"generate_key": true}), "generate_key"},
		"unknown option":              {ca, deploy.with(fields{"critical_options": fields{"force-comand": "x"}}), "force-comand"},
		"no command":                  {ca, deploy.with(fields{"critical_options": fields{"force-command": ""}}), "force-command"},
		"a command of two lines":      {ca, deploy.with(fields{"critical_options": fields{"force-command": "a\nb"}}), "force-command"},
		"no address":                  {ca, deploy.with(fields{"critical_options": fields{"source-address": ""}}), "source-address"},
		"a pattern":                   {ca, deploy.with(fields{"critical_options": fields{"source-address": "10.0.0.*"}}), "source-address"},
		"an interface":                {ca, deploy.with(fields{"critical_options": fields{"source-address": "fe80::1%eth0"}}), "source-address"},
		"many addresses":              {ca, deploy.with(fields{"critical_options": fields{"source-address": strings.Repeat("10.0.0.1,", 200) + "10.0.0.1"}}), "source-address"},
		"bits beyond the length":      {ca, deploy.with(fields{"critical_options": fields{"source-address": "10.0.0.1/8"}}), "source-address"},
		"an extension with a space":   {ca, deploy.with(fields{"extensions": fields{"permit pty": ""}}), "extensions"},
		"an extension that is none":   {ca, deploy.with(fields{"allowed_extensions": []string{""}}), "allowed_extensions"},
		"a key id without the lease":  {ca, deploy.with(fields{"key_id_template": "{{identity}}"}), "lease_id"},
		"a key id of unknown":         {ca, deploy.with(fields{"key_id_template": "{{lease_id}} {{password}}"}), "password"},
		"a key id of two lines":       {ca, deploy.with(fields{"key_id_template": "{{lease_id}}\n"}), "key_id_template"},
		"networks of a certificate":   {ca, deploy.with(fields{"cidr_list": []string{"10.0.0.0/8"}}), "cidr_list"},
		"passwords for every host":    {otp, deploy, "cidr_list"},
		"passwords for nobody":        {otp, fields{"cidr_list": []string{"10.0.0.0/8"}}, "allowed_users"},
		"passwords with an extension": {otp, onlyDeploy.with(fields{"extensions": fields{"permit-pty": ""}}), "extensions"},
		"no network":                  {otp, onlyDeploy.with(fields{"cidr_list": []string{"10.0.0.1"}}), "cidr_list"},
		"no port":                     {otp, onlyDeploy.with(fields{"port": 65536}), "port"},
	} {
		role, err := ssh.Type{}.ParseRole(tt.role.raw(t))
		code := fault.CodeOf(err)
		if err == nil {
			_, err = open(t, newOptions(t, tt.mode)).PrepareRole(t.Context(), "deploy", role)
			if engine.KindOf(err) == engine.Misconfigured {
				code = fault.InvalidConfig
			}
		}
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || code != fault.InvalidConfig || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who makes a role for people is told that it opens no terminal.
func TestRoleWarns(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, ca))
	for _, tt := range []struct {
		role  fields
		warns int
	}{{deploy, 1}, {deploy.with(fields{"extensions": fields{"permit-pty": ""}}), 0}, {deploy.with(fields{"critical_options": fields{"force-command": "/bin/true"}}), 0}} {
		warnings, err := e.PrepareRole(t.Context(), "deploy", newRole(t, tt.role))
		if err != nil || len(warnings) != tt.warns {
			t.Errorf("%v: %v, %v", tt.role, warnings, err)
		}
	}
}

// A role that was saved under another mode of its engine makes nothing.
func TestRoleOfAnotherMode(t *testing.T) {
	t.Parallel()
	_, err := plan(t, open(t, newOptions(t, ca)), newRole(t, onlyDeploy), fields{"ip": "10.1.2.3"})
	if engine.KindOf(err) != engine.Refused {
		t.Errorf("a certificate by a role of passwords: %v", err)
	}
	_, line := newKey(t)
	if _, err = plan(t, open(t, newOptions(t, otp)), newRole(t, deploy), fields{"public_key": line}); engine.KindOf(err) != engine.Refused {
		t.Errorf("a password by a role of certificates: %v", err)
	}
}
