package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/gcptest"
)

// documents are bodies that an engine must not take: of another configuration, of roles, of requests for a
// credential of a role that there is.
type documents struct {
	engine string // to spoil
	config []string
	role   string // to spoil; it is taken as it is
	roles  []string
	creds  []string
}

// anywhere are values that no field of any engine takes.
var anywhere = []string{
	`null1`, `{"a": {"b": [[[[1]]]]}}`, `[]`, `[[]]`, `{}`, `12345678901234567890`, `-1`, `1.5`, `true`, `""`, `" "`, `"\u0000"`, `"a\u0000b"`, `"a\nb"`, `"a\r\nHost: evil"`,
	`"../../etc/passwd"`, `"..%2f..%2f"`, `"\u202eoot"`, `"r\u043e\u043et"`, `"` + canary + `; DROP"`, `"{{password}}"`, `"$(id)"`, `"*"`, `["*"]`, `["a", 1]`, `[null]`, `[""]`,
}

// filled are documents in which one field has one of the values, but for those that say nothing in such a field.
func filled(good string, fields map[string]string) (all []string) {
	for field, empty := range fields {
		for _, value := range anywhere {
			if value == empty {
				continue
			}
			all = append(all, strings.TrimSuffix(good, "}")+`, "`+field+`": `+value+`}`)
		}
	}
	return all
}

// What no engine can be, no role give and no caller have is refused with a 4xx that helps, and nothing is stored
// or made.
func TestBadInputOfEngines(t *testing.T) {
	t.Parallel()
	engines := map[string]func(t *testing.T, v *vault) documents{"ssh": badSSH, "passwords": badPasswords, "script": badScript, "aws": badAWS, "azure": badAzure, "gcp": badGCP}
	for name, start := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, scripting()...)
			v.remember(canary)
			d := start(t, v)
			const engine, roles, creds = "POST /v1/dynamic/engines", "POST /v1/dynamic/engines/cloud/roles", "POST /v1/dynamic/engines/cloud/creds/reader"
			good := map[string]string{engine: d.engine, roles: d.role, creds: `{"ttl": "20m"}`}
			var table []bad
			for request, document := range good {
				table = append(table, spoilt(request, document)...)
			}
			for request, bodies := range map[string][]string{engine: d.config, roles: d.roles, creds: d.creds} {
				for _, body := range bodies {
					table = append(table, bad{request, body, 400, ""})
				}
			}
			before := v.stored(t)
			for _, b := range table {
				v.mustRefuse(t, b, strings.NewReplacer())
			}
			if after := v.stored(t); after != before {
				t.Errorf("something was stored\nbefore: %s\nafter:  %s", before, after)
			}
			if status, answer := v.raw(t, "POST", "/v1/dynamic/engines/cloud/roles", d.role); status != 201 {
				t.Errorf("the role that the bad ones were made of: %d %s", status, answer)
			}
			t.Logf("%d bodies", len(table))
		})
	}
}

// stored is all that there is, as one text to compare.
func (v *vault) stored(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{"/v1/dynamic/engines", "/v1/dynamic/engines/cloud/roles", "/v1/dynamic/leases", "/v1/secrets"} {
		_, body := v.raw(t, "GET", path, "")
		fmt.Fprintf(&all, "%s %s\n", path, body)
	}
	return all.String()
}

func badSSH(t *testing.T, v *vault) documents {
	t.Helper()
	v.sshEngine(t, "cloud", map[string]any{}, client.Document{"name": "reader", "allowed_users": []string{"deploy", "app"}, "extensions": map[string]string{"permit-pty": ""}})
	key := `"public_key": ` + publicKey(t)
	const engine, role = `{"name": "x", "type": "ssh", "config": {%s}}`, `{"name": "x", "allowed_users": ["deploy"]}`
	d := documents{engine: fmt.Sprintf(engine, ""), role: role}
	for _, config := range []string{`"mode": "root"`, `"mode": "CA"`, `"mode": ["ca"]`, `"mode": "ca\u0000"`, `"key_type": "dsa"`, `"key_type": "rsa-1024"`, `"krl_max_age": "25h"`, `"krl_max_age": 0`, `"krl_max_age": "-1m"`,
		`"krl_max_age": "1s", "krl_max_age": "2s"`, `"root_credentials_path": "../x"`, `"root_credentials_path": "sys/x"`, `"root_credentials_path": "A/b"`, `"mode": "otp", "key_type": "ed25519"`,
		`"mode": "otp", "root_credentials_path": "infra/x/ca"`, `"plugin": "ca"`, `"private_key": "` + canary + `"`, `"connection_url": "ssh://x"`} {
		d.config = append(d.config, fmt.Sprintf(engine, config))
	}
	with := func(fields string) string { return strings.TrimSuffix(role, "}") + `, ` + fields + `}` }
	for _, users := range []string{`"root,admin"`, `"*"`, `"Root"`, `"ro ot"`, `"-oProxyCommand"`, `"root\n"`, `"root\u0000"`, `"r\u043eot"`, `"` + strings.Repeat("a", 33) + `"`, `""`, `"root", 1`, `"@admins"`, `"%u"`} {
		d.roles = append(d.roles, `{"name": "x", "allowed_users": [`+users+`]}`)
	}
	for _, fields := range []string{
		`"default_user": "root"`, `"allowed_domains": ["a.example"]`, `"cert_type": "host"`, `"cert_type": "both"`, `"cidr_list": ["10.0.0.0/8"]`, `"port": 22`, `"require_client_ip": true`, `"renewable": true`,
		`"critical_options": {"force-command": ""}`, `"critical_options": {"force-command": "a\nb"}`, `"critical_options": {"force-command": "\u201cid\u201d"}`, `"critical_options": {"force-command": "` + strings.Repeat("x", 2000) + `"}`,
		`"critical_options": {"source-address": ""}`, `"critical_options": {"source-address": "10.0.0.1/8"}`, `"critical_options": {"source-address": "10.0.0.0/33"}`, `"critical_options": {"source-address": "example.com"}`,
		`"critical_options": {"source-address": "10.0.0.0/8,"}`, `"critical_options": {"source-address": "!10.0.0.0/8"}`, `"critical_options": {"source-address": "fe80::1%eth0"}`,
		`"critical_options": {"source-address": "` + strings.Repeat("10.0.0.1,", 200) + `10.0.0.1"}`, `"critical_options": {"source-address": "010.0.0.1"}`,
		`"critical_options": {"verify-required": "yes"}`, `"critical_options": {"permitopen": "x"}`, `"critical_options": {"FORCE-COMMAND": "id"}`,
		`"extensions": {"permit pty": ""}`, `"extensions": {"permit-pty\u0000": ""}`, `"extensions": {"": ""}`, `"extensions": {"permit-pty": "\u0007"}`, `"extensions": ["permit-pty"]`, `"allowed_extensions": ["a b"]`, `"allowed_extensions": ["*,"]`,
		`"key_id_template": "{{identity}}"`, `"key_id_template": "{{lease_id}} {{password}}"`, `"key_id_template": "{{lease_id"`, `"key_id_template": "{{lease_id}}\n"`, `"key_id_template": "{{lease_id}} \u00e9"`,
		`"max_ttl": "48h"`, `"default_ttl": "0s"`, `"default_ttl": "-5m"`, `"max_ttl": "1.5h"`, `"default_ttl": 1e3`, `"allowed_users": ["root"]`,
		`"default_user": "deploy\u0000"`, `"generate_key": "yes"`,
	} {
		d.roles = append(d.roles, with(fields))
	}
	many, err := json.Marshal(strings.Split(strings.Repeat("a ", 300)+"a", " "))
	if err != nil {
		t.Fatal(err)
	}
	d.roles = append(d.roles, `{"name": "x", "allowed_users": `+string(many)+`}`, `{"name": "x/../y", "allowed_users": ["a"]}`, `{"name": "x/y", "allowed_users": ["a"]}`, `{"name": "x\u0000", "allowed_users": ["a"]}`, `{"name": "X", "allowed_users": ["a"]}`,
		`{"name": "x", "cert_type": "host", "allowed_domains": ["*"]}`, `{"name": "x", "cert_type": "host", "allowed_domains": ["*.*.example"]}`, `{"name": "x", "cert_type": "host", "allowed_domains": ["a.example\n"]}`,
		`{"name": "x", "cert_type": "host", "allowed_domains": ["a..example"]}`, `{"name": "x", "cert_type": "host", "allowed_domains": ["A.example"]}`, `{"name": "x", "cert_type": "host", "allowed_domains": ["a.example"], "allowed_users": ["root"]}`)
	d.roles = append(d.roles, filled(role, map[string]string{"allowed_domains": "[]", "critical_options": "{}", "cert_type": `""`, "key_id_template": `""`, "port": "", "cidr_list": "[]"})...)
	for _, fields := range []string{
		``, `"public_key": ""`, `"public_key": "ssh-ed25519 AAAA"`, `"public_key": 1`, `"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n` + canary + `"`, `"public_key": "` + strings.Repeat("A", 5000) + `"`,
		key + `, "username": "root"`, key + `, "username": "deploy,root"`, key + `, "username": "root,admin"`, key + `, "username": "deploy,deploy"`, key + `, "username": "deploy,"`, key + `, "username": ","`, key + `, "username": "*"`,
		key + `, "username": "deploy "`, key + `, "username": "deploy\n"`, key + `, "username": "deploy\u0000"`, key + `, "username": ["deploy"]`, key + `, "username": "` + strings.Repeat("deploy,", 3000) + `app"`,
		key + `, "extensions": {"permit-port-forwarding": ""}`, key + `, "extensions": {"permit-pty": "x"}`, key + `, "extensions": ["permit-pty"]`, key + `, "critical_options": {}`, key + `, "force-command": "id"`, key + `, "valid_principals": "root"`,
		key + `, "generate_key": true`, `"generate_key": true`, key + `, "ttl": "25h"`, key + `, "ttl": "0s"`, key + `, "ttl": "-1s"`, key + `, "ttl": 99999999999`, key + `, "key_id": "x"`, key + `, "serial": 1`, key + `, "ip": "10.0.0.1"`, key + `, "cert_type": "host"`,
	} {
		d.creds = append(d.creds, `{`+fields+`}`)
	}
	return d
}

func badPasswords(t *testing.T, v *vault) documents {
	t.Helper()
	v.sshEngine(t, "cloud", map[string]any{"mode": "otp"}, client.Document{"name": "reader", "allowed_users": []string{"deploy"}, "cidr_list": []string{"10.0.0.0/8"}})
	const role = `{"name": "x", "allowed_users": ["deploy"], "cidr_list": ["10.0.0.0/8"]}`
	d := documents{engine: `{"name": "x", "type": "ssh", "config": {"mode": "otp"}}`, role: role}
	for _, fields := range []string{`"extensions": {"permit-pty": ""}`, `"critical_options": {"force-command": "id"}`, `"generate_key": true`, `"key_id_template": "{{lease_id}}"`, `"cert_type": "user"`, `"allowed_domains": ["a.example"]`,
		`"port": 70000`, `"port": -1`, `"port": "22"`, `"require_client_ip": "yes"`} {
		d.roles = append(d.roles, strings.TrimSuffix(role, "}")+`, `+fields+`}`)
	}
	for _, list := range []string{`[]`, `["10.0.0.0"]`, `["10.0.0.0/33"]`, `["any"]`, `["10.0.0.0/8\n"]`, `["fe80::%eth0/10"]`, `[1]`, `"10.0.0.0/8"`} {
		d.roles = append(d.roles, `{"name": "x", "allowed_users": ["deploy"], "cidr_list": `+list+`}`)
	}
	for _, fields := range []string{
		``, `"ip": ""`, `"ip": "11.0.0.1"`, `"ip": "10.0.0.1/8"`, `"ip": "10.0.0.1:22"`, `"ip": "web1"`, `"ip": "010.0.0.1"`, `"ip": "10.0.0.1\u0000"`, `"ip": "10.1"`, `"ip": "fe80::1%eth0"`, `"ip": ["10.0.0.1"]`, `"ip": 167772161`,
		`"ip": "10.0.0.1", "username": "root"`, `"ip": "10.0.0.1", "username": "deploy,root"`, `"ip": "10.0.0.1", "username": "deploy", "port": 22`, `"ip": "10.0.0.1", "username": "deploy", "public_key": "x"`,
		`"ip": "10.0.0.1", "username": "deploy", "client_ip": "x"`, `"ip": "10.0.0.1", "username": "deploy", "client_ip": "0.0.0.0/0"`, `"ip": "10.0.0.1", "username": "deploy", "client_ip": "*"`, `"ip": "10.0.0.1", "username": "deploy", "otp": "mine"`,
		`"ip": "10.0.0.1", "username": "deploy", "ttl": "25h"`,
	} {
		d.creds = append(d.creds, `{`+fields+`}`)
	}
	return d
}

func badScript(t *testing.T, v *vault) documents {
	t.Helper()
	c := inTokens(t)
	r, lead := newRelay(t, v)
	lead(c.source)
	v.cloudEngine(t, r, c)
	const script = `"script": "def issue(ctx): pass\ndef revoke(ctx): pass\n"`
	const engine = `{"name": "x", "type": "custom", "config": {%s}}`
	d := documents{engine: fmt.Sprintf(engine, `"runtime": "exec", "command": "absent"`), role: `{"name": "x"}`}
	for _, config := range []string{
		``, `"runtime": "shell"`, `"runtime": "exec"`, `"runtime": "exec", "command": "/bin/sh"`, `"runtime": "exec", "command": "../sh"`, `"runtime": "exec", "command": "sh\u0000"`, `"runtime": "exec", "command": ["sh", "-c"]`, `"runtime": "exec", "command": "sh -c id"`,
		`"runtime": "starlark"`, `"runtime": "starlark", "script": ""`, `"runtime": "starlark", "script": "x = "`, `"runtime": "starlark", "script": "load('a', 'b')"`, `"runtime": "starlark", "script": "` + strings.Repeat("#", 65<<10) + `"`,
		`"runtime": "starlark", "script": "x = ` + strings.Repeat("(", 20000) + `"`, `"runtime": "starlark", "script": "x = ` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `\ndef issue(ctx): pass\ndef revoke(ctx): pass\n"`, `"runtime": "starlark", "script": "def issue(ctx): pass\ndef revoke(ctx): pass\nx = ` + strings.Repeat("-", 60000) + `1\n"`,
		`"runtime": "starlark", ` + script + `, "http_hosts": ["*"]`, `"runtime": "starlark", ` + script + `, "http_hosts": ["169.254.169.254"]`, `"runtime": "starlark", ` + script + `, "http_hosts": ["127.0.0.1@evil.example"]`,
		`"runtime": "starlark", ` + script + `, "http_hosts": ["127.0.0.1/x"]`, `"runtime": "starlark", ` + script + `, "http_hosts": ["127.0.0.1\u0000"]`, `"runtime": "starlark", ` + script + `, "http_hosts": ["http://10.0.0.1"]`, `"runtime": "starlark", ` + script + `, "http_hosts": ["file:///etc"]`,
		`"runtime": "starlark", ` + script + `, "http_hosts": ["127.0.0.1:99999"]`, `"runtime": "starlark", ` + script + `, "http_hosts": "127.0.0.1"`, `"runtime": "starlark", ` + script + `, "command": "sh"`,
		`"runtime": "starlark", ` + script + `, "parameters": "` + strings.Repeat("p", 17<<10) + `"`, `"runtime": "starlark", ` + script + `, "operation_timeout": "1h"`, `"runtime": "starlark", ` + script + `, "max_open_connections": 1`,
	} {
		d.config = append(d.config, fmt.Sprintf(engine, config))
	}
	d.roles = []string{`{"name": "x", "parameters": "` + strings.Repeat("p", 17<<10) + `"}`, `{"name": "x", "parameter": 1}`, `{"name": "x", "creation_statements": ["x"]}`, `{"name": "../x"}`, `{"name": "x", "parameters": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`}
	d.creds = []string{`{"parameters": "` + strings.Repeat("p", 17<<10) + `"}`, `{"parameter": 1}`, `{"parameters": {"a": 1, "a": 2}}`, `{"parameters": "\ud800"}`, `{"name": "root"}`, `{"root": {}}`, `{"ref": 1}`}
	return d
}

func badAWS(t *testing.T, v *vault) documents {
	t.Helper()
	c := inAWS(t)
	r, lead := newRelay(t, v)
	lead(c.source)
	v.cloudEngine(t, r, c)
	const allow = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}`
	const role = `{"name": "x", "credential_type": "iam_user", "policy_document": ` + allow + `}`
	d := documents{role: role}
	d.engine, d.config = c.changed(t, r.url, map[string][]any{
		"iam_endpoint": elsewhere, "sts_endpoint": append(elsewhere, "https://169.254.169.254"), "region": {"eu", "", "eu-central-1\n", "../x", "eu-c\u0435ntral-1", nil},
		"role_arn":    {"arn:aws:iam::123456789012:role/*", "arn:aws:iam::*:role/x", "arn:aws:iam::123456789012:user/x", "x"},
		"external_id": {"x", "a b"}, "consistency_delay": {"6m", "0s", "-1s"}, "username_template": {"fixed", "{{random:20}}/x", strings.Repeat("a", 70) + "{{random:20}}", "{{password}}{{random:20}}"},
		"access_key_id": {canary}, "profile": {"default"}, "tls_ca_path": {"infra/nothing", "infra/cloud/root", "../x"}, "max_open_connections": {0, 1, -1}, "operation_timeout": {"6m"}, "root_credentials_path": {"infra/nothing", nil},
	})
	user := func(fields string) string { return `{"name": "x", "credential_type": "iam_user", ` + fields + `}` }
	d.roles = append(d.roles, filled(role, map[string]string{
		"iam_groups": "[]", "permissions_boundary_arn": `""`, "user_path": `""`, "iam_tags": "{}", "policy_arns": "[]", "role_arns": "[]", "wait_until_usable": "true"})...)
	for _, arn := range []string{`arn:aws:iam::123456789012:policy/*`, `arn:aws:iam::*:policy/x`, `arn:aws:iam::aws:policy/${aws:username}`, `arn:aws:iam::aws:policy/a b`, `arn:aws:iam::aws:role/x`, `arn:aws:s3:::bucket`, `arn:aws:iam::12345678901:policy/x`,
		`arn:aws:iam::aws:policy/x\n`, `ARN:AWS:IAM::aws:policy/x`, `arn:aws:iam::aws:policy//x`, `arn:aws:iam::aws:policy/` + strings.Repeat("x", 129), `arn:aws:iam::aws:policy/NoSuchPolicyAtAll`, `arn:aws:iam::999999999999:policy/other`} {
		d.roles = append(d.roles, user(`"policy_arns": ["`+arn+`"]`))
	}
	for _, document := range []string{
		`{}`, `[]`, `"{"`, `"x"`, `1`, `{"Version": "2012-10-17"}`, `{"Version": "2012-10-17", "Statement": []}`, `{"Version": "2030-01-01", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}`, `{"Version": "2012-10-17", "Statement": [{"Effect": "allow", "Action": "*", "Resource": "*"}]}`,
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]}`, `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*"}]}`, `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*"}]}`,
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "NotAction": "x", "Resource": "*"}]}`, `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Extra": 1}]}`,
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "` + strings.Repeat("x", 2100) + `"}]}`,
	} {
		d.roles = append(d.roles, user(`"policy_document": `+document))
	}
	for _, fields := range []string{`"iam_groups": ["a/b"]`, `"iam_groups": ["no-such-group"]`, `"iam_groups": ["*"]`, `"user_path": "/"`, `"user_path": "/scaivault/*/"`, `"user_path": "/admin/"`, `"user_path": "/scaivault"`,
		`"permissions_boundary_arn": "arn:aws:iam::123456789012:policy/none"`, `"iam_tags": {"aws:x": "y"}`, `"iam_tags": {"scaivault:mark": "y"}`, `"iam_tags": {"SCAIVAULT:mark": "y"}`, `"iam_tags": {"": "y"}`, `"iam_tags": {"a": "\u0000"}`, `"iam_tags": {"a": 1}`,
		`"end_sessions": true`, `"external_id": "abc"`, `"role_arns": ["arn:aws:iam::123456789012:role/app-deploy"]`, `"max_ttl": "25h"`, `"default_ttl": "0s"`} {
		d.roles = append(d.roles, user(`"policy_document": `+allow+`, `+fields))
	}
	for _, fields := range []string{`"credential_type": "assumed_role"`, `"credential_type": "assumed_role", "role_arns": ["arn:aws:iam::123456789012:role/*"]`, `"credential_type": "assumed_role", "role_arns": ["arn:aws:iam::123456789012:role/no-such-role"]`,
		`"credential_type": "federation_token"`, `"credential_type": "federation_token", "policy_document": ` + allow + `, "max_ttl": "37h"`, `"credential_type": "session_token", "policy_document": ` + allow, `"credential_type": "session_token", "default_ttl": "5m"`,
		`"credential_type": "IAM_USER", "policy_document": ` + allow, `"credential_type": ["iam_user"]`, `"credential_type": null`, `"policy_document": ` + allow} {
		d.roles = append(d.roles, `{"name": "x", `+fields+`}`)
	}
	d.creds = []string{`{"role_arn": "arn:aws:iam::123456789012:role/app-deploy"}`, `{"session_name": "x"}`, `{"role_arn": "*"}`, `{"session_name": "a/b"}`, `{"session_name": "` + strings.Repeat("x", 65) + `"}`, `{"policy_document": ` + allow + `}`, `{"policy": "x"}`, `{"ttl": "25h"}`, `{"username": "root"}`, `{"session_name": 1}`}
	return d
}

// changed are documents of an engine that is as the one there is, but for one field.
func (c cloud) changed(t *testing.T, url string, fields map[string][]any) (good string, all []string) {
	t.Helper()
	document := func(field string, value any) string {
		config := c.engineConfig(url)
		if config[field] = value; value == nil {
			delete(config, field)
		}
		raw, err := json.Marshal(map[string]any{"name": "x", "type": c.kind, "config": config})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for field, values := range fields {
		for _, value := range append(values, []any{}, map[string]any{"a": 1}, 1.5) {
			all = append(all, document(field, value))
		}
	}
	return document("nobody_knows", "x"), all
}

// elsewhere are no endpoints of anything.
var elsewhere = []any{"http://iam.example.com", "https://root:pw@iam.example.com", "https://iam.example.com/x", "https://iam.example.com?x", "https://iam.example.com#", "ftp://iam", "https://", "https://a b", `https://a\b`, "https://[::1",
	"https://a:0", "https://a:99999", "//x", "https://x\x00", "https://x\r\nHost: y", "file:///etc/passwd"}

func badAzure(t *testing.T, v *vault) documents {
	t.Helper()
	c := inAzure(t)
	r, lead := newRelay(t, v)
	lead(c.source)
	v.cloudEngine(t, r, c)
	const id, other = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
	tenant, _ := c.config["subscription_id"].(string)
	const role = `{"name": "x", "azure_roles": [{"role_name": "Reader"}]}`
	d := documents{role: role}
	endpoint := append(elsewhere, "http://127.0.0.1", "https://graph.example.com/", "https://Graph.example.com", "https://a..b", "https://gr\u0430ph.microsoft.com")
	d.engine, d.config = c.changed(t, r.url, map[string][]any{
		"login_endpoint": append(endpoint, "https://169.254.169.254"), "graph_endpoint": endpoint, "resource_manager_endpoint": endpoint,
		"tenant_id": {"common", "", id + "/../x", strings.ToUpper("abcdefab-2222-4333-8444-555555555555"), id + "\x00", nil}, "subscription_id": {"x", "*", strings.ToUpper("abcdefab-2222-4333-8444-555555555555")},
		"environment": {"mars", "PUBLIC", "public\x00"}, "token_lifetime": {"25h", "0s"}, "client_secret": {canary}, "username_template": {"x"}, "tls_ca_path": {"infra/cloud/root", "infra/nothing"}, "operation_timeout": {"6m"}, "max_open_connections": {1},
	})
	for _, scope := range []string{"/subscriptions/" + other, "/subscriptions/" + tenant + "/", "/subscriptions/" + tenant + "/../" + other, "/subscriptions/" + tenant + "%2f..%2f" + other, "/", "", "*", "/subscriptions/*", "subscriptions/" + tenant, "/subscriptions/" + tenant + "/resourceGroups/a?b", "/subscriptions/" + tenant + "/resourceGroups/a#b",
		"/subscriptions/" + tenant + "/resourcegroups/a", "/subscriptions/" + tenant + "/resourceGroups/..", "/subscriptions/" + tenant + "/resourceGroups/a/providers/x", "/providers/Microsoft.Management/managementGroups/../x", "/subscriptions/" + tenant + "\x00", "/subscriptions/" + tenant + "/resourceGroups/\u0430", "/subscriptions/" + tenant + "/resourceGroups/" + strings.Repeat("a", 2000)} {
		raw, err := json.Marshal(scope)
		if err != nil {
			t.Fatal(err)
		}
		if scope != "" {
			d.roles = append(d.roles, `{"name": "x", "azure_roles": [{"role_name": "Reader", "scope": `+string(raw)+`}]}`)
		}
	}
	for _, roles := range []string{`[]`, `[{}]`, `[{"role_name": ""}]`, `[{"role_name": "Reeder"}]`, `[{"role_name": "reader' or 1 eq 1"}]`, `[{"role_name": "Reader\u0000"}]`, `[{"role_name": "R\u0435ader"}]`, `[{"role_id": "x"}]`, `[{"role_id": "` + other + `"}]`, `[{"role_name": "Reader", "role_id": "` + id + `"}]`,
		`[{"role_name": "Reader", "principal": "x"}]`, `{"role_name": "Reader"}`, `["Reader"]`, `[{"role_name": ["Reader"]}]`, `[{"role_name": "` + strings.Repeat("R", 300) + `"}]`, `[` + strings.Repeat(`{"role_name": "Reader"},`, 33) + `{"role_name": "Reader"}]`} {
		d.roles = append(d.roles, `{"name": "x", "azure_roles": `+roles+`}`)
	}
	for _, fields := range []string{`"azure_groups": ["no such group"]`, `"azure_groups": ["` + other + `"]`, `"azure_groups": ["a' or displayName ne '"]`, `"azure_groups": [""]`, `"azure_groups": ["*"]`, `"azure_groups": [1]`, `"application_object_id": "` + other + `"`, `"application_object_id": "*"`, `"application_object_id": "../x"`,
		`"application_object_id": "` + id + `", "azure_roles": [{"role_name": "Reader"}]`, `"application_object_id": "` + id + `", "permanently_delete": true`, `"permanently_delete": true`, `"azure_roles": [{"role_name": "Reader"}], "max_ttl": "25h"`, `"azure_roles": [{"role_name": "Reader"}], "renewable": true`, `"azure_roles": [{"role_name": "Reader"}], "permanently_delete": "yes"`} {
		d.roles = append(d.roles, `{"name": "x", `+fields+`}`)
	}
	d.creds = []string{`{"scope": "/"}`, `{"azure_roles": []}`, `{"client_id": "` + id + `"}`, `{"ttl": "25h"}`, `{"ttl": "0s"}`, `{"tenant_id": "` + other + `"}`, `{"parameters": {}}`}
	return d
}

func badGCP(t *testing.T, v *vault) documents {
	t.Helper()
	c := inGoogle(t)
	r, lead := newRelay(t, v)
	lead(c.source)
	v.cloudEngine(t, r, c)
	const bindings = `"bindings": [{"resource": "projects/` + gcptest.Project + `", "roles": ["roles/app.reader"]}]`
	const role = `{"name": "x", "credential_type": "service_account_key", ` + bindings + `}`
	d := documents{role: role}
	endpoints := []any{map[string]string{"storage": "https://x.example"}, "https://x.example"}
	for _, url := range append(elsewhere, "http://metadata.google.internal", "https://169.254.169.254") {
		endpoints = append(endpoints, map[string]any{"iam": r.url, "iamcredentials": r.url, "cloudresourcemanager": r.url, "oauth2": url})
	}
	d.engine, d.config = c.changed(t, r.url, map[string][]any{
		"endpoints": endpoints, "iam_propagation": {"2h", "0s"}, "username_template": {"{{random:20}}"}, "credentials": {canary}, "tls_ca_path": {"infra/cloud/root", "infra/nothing"}, "operation_timeout": {"6m"},
		"project": {"My-Project", "a", "projects/abcdef", "abcdef/../ghijkl", "abcdef\x00", "-", "fake_project_123", strings.Repeat("a", 31), "*", "", nil},
	})
	for _, resource := range []string{"projects/" + gcptest.Project + ":setIamPolicy", "projects/" + gcptest.Project + "/../other-1", "projects/other-project-9", "projects/*", "projects/-", "*", "", "buckets/x", "folders/x", "folders/1/../2", "organizations/-1", "projects/" + gcptest.Project + "/topics/a?b", "projects/" + gcptest.Project + "/topics/a%2fb",
		"projects/" + gcptest.Project + "/serviceAccounts/-", "projects/" + gcptest.Project + "/secrets/a\x00", "projects/" + gcptest.Project + "\n", "//cloudresourcemanager.googleapis.com/projects/x", "projects/" + gcptest.Project + "/topics/" + strings.Repeat("a", 3000)} {
		raw, err := json.Marshal(resource)
		if err != nil {
			t.Fatal(err)
		}
		d.roles = append(d.roles, `{"name": "x", "credential_type": "service_account_key", "bindings": [{"resource": `+string(raw)+`, "roles": ["roles/app.reader"]}]}`)
	}
	for _, roles := range []string{`[]`, `["roles/owner"]`, `["roles/editor"]`, `["roles/viewer"]`, `["owner"]`, `["roles/*"]`, `["roles/app.reader", "roles/app.reader"]`, `["projects/x/roles/y"]`, `["roles/a b"]`, `["roles/app.reader\n"]`, `[1]`, `"roles/app.reader"`, `["roles/` + strings.Repeat("a", 200) + `"]`} {
		d.roles = append(d.roles, `{"name": "x", "credential_type": "service_account_key", "bindings": [{"resource": "projects/`+gcptest.Project+`", "roles": `+roles+`}]}`)
	}
	for _, fields := range []string{`"credential_type": "service_account_key"`, `"credential_type": "api_key", ` + bindings, `"credential_type": "access_token", ` + bindings + `, "max_ttl": "2h"`, `"credential_type": "access_token", ` + bindings + `, "token_scopes": ["https://evil.example/auth/x"]`,
		`"credential_type": "access_token", ` + bindings + `, "token_scopes": ["*"]`, `"credential_type": "access_token", ` + bindings + `, "key_origin": "google"`, `"credential_type": "service_account_key", "service_account_email": "x"`, `"credential_type": "service_account_key", "service_account_email": "a@b.example"`,
		`"credential_type": "service_account_key", "service_account_email": "-@` + gcptest.Project + `.iam.gserviceaccount.com"`, `"credential_type": "service_account_key", "service_account_email": "none@` + gcptest.Project + `.iam.gserviceaccount.com"`, `"credential_type": "service_account_key", "service_account_email": "app@other-project-9.iam.gserviceaccount.com"`,
		`"credential_type": "service_account_key", "service_account_email": "a/../b@` + gcptest.Project + `.iam.gserviceaccount.com"`, `"credential_type": "service_account_key", "service_account_email": "a@` + gcptest.Project + `.iam.gserviceaccount.com\n"`,
		`"credential_type": "service_account_key", ` + bindings + `, "key_origin": "user"`, `"credential_type": "service_account_key", ` + bindings + `, "renewable": true`, `"credential_type": "service_account_key", ` + bindings + `, "extended_token_lifetime": true`, `"credential_type": "service_account_key", "bindings": [{"resource": "projects/` + gcptest.Project + `", "roles": ["roles/app.reader"], "condition": {}}]`} {
		d.roles = append(d.roles, `{"name": "x", `+fields+`}`)
	}
	d.creds = []string{`{"token_scopes": []}`, `{"service_account_email": "x"}`, `{"bindings": []}`, `{"ttl": "25h"}`, `{"ttl": "0s"}`, `{"key_origin": "google"}`, `{"parameters": 1}`}
	return d
}
