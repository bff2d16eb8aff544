package aws_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/aws"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/fault"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	refused := enginetest.Refusals{
		"no region":              {map[string]any{"region": ""}, "region"},
		"a host as region":       {map[string]any{"region": "evil.example/#"}, "region"},
		"a user as role":         {map[string]any{"role_arn": "arn:aws:iam::123456789012:user/x"}, "role_arn"},
		"external id alone":      {map[string]any{"external_id": "x1"}, "external_id"},
		"external id of spaces":  {map[string]any{"role_arn": "arn:aws:iam::123456789012:role/x", "external_id": "a b"}, "external_id"},
		"ambient with a root":    {map[string]any{"ambient": true}, "root_credentials_path"},
		"ambient elsewhere":      {map[string]any{"ambient": true, "root_credentials_path": "", "sts_endpoint": "https://sts.example.com"}, "sts_endpoint"},
		"ambient elsewhere, iam": {map[string]any{"ambient": true, "root_credentials_path": "", "iam_endpoint": "https://iam.example.com"}, "iam_endpoint"},
		"ambient with a trust":   {map[string]any{"ambient": true, "root_credentials_path": "", "tls_ca_path": "infra/ca"}, "tls_"},
		"no root":                {map[string]any{"ambient": false, "root_credentials_path": ""}, "root_credentials_path"},
		"ambient as a text":      {map[string]any{"ambient": "instance", "root_credentials_path": ""}, "ambient"},
		"too long a delay":       {map[string]any{"consistency_delay": "1h"}, "consistency_delay"},
		"a password in the name": {map[string]any{"username_template": "hunter2"}, "username_template"},
	}
	for name, endpoint := range map[string]string{
		"in clear": "http://iam.example.com", "user": "https://root:hunter2@iam.example.com", "path": "https://iam.example.com/x",
		"query": "https://iam.example.com?x=1", "fragment": "https://iam.example.com#", "no scheme": "iam.example.com", "no host": "https://",
		"port": "https://iam.example.com:0", "no port": "https://iam.example.com:", "big port": "https://iam.example.com:65536",
		"another scheme": "ftp://iam.example.com", "opaque": "https:iam.example.com", "wildcard": "https://*.example.com", "no URL": "https://a b",
	} {
		for _, field := range []string{"iam_endpoint", "sts_endpoint"} {
			refused["endpoint "+name+" of "+field] = struct {
				Fields map[string]any
				Says   string
			}{map[string]any{field: endpoint}, field}
		}
	}
	enginetest.Configs{Type: aws.Type{}, Refused: refused, Good: map[string]any{"region": "eu-central-1", "root_credentials_path": "infra/root"}}.Run(t)
	for region, endpoint := range map[string]string{
		`"region": "cn-north-1"`: "region cn-north-1",
		`"region": "us-gov-west-1", "role_arn": "arn:aws-us-gov:iam::123456789012:role/path/x", "external_id": "abc"`: "region us-gov-west-1, as arn:aws-us-gov:iam::123456789012:role/path/x",
		`"region": "eu-west-1", "sts_endpoint": "https://sts.example.com:8443", "iam_endpoint": "http://127.0.0.1:1"`: "region eu-west-1, iam http://127.0.0.1:1, sts https://sts.example.com:8443",
	} {
		c, err := aws.Type{}.ParseConfig(json.RawMessage(`{"root_credentials_path": "x", ` + region + `}`))
		if err != nil || c.Endpoint != endpoint {
			t.Errorf("%s: %q, %v", region, c.Endpoint, err)
		}
	}
}

// A key is one user's, whatever role of another account it leads to; another IAM has other users.
func TestRootHome(t *testing.T) {
	t.Parallel()
	home := func(more string) string {
		c, err := aws.Type{}.ParseConfig(json.RawMessage(`{"region": "eu-west-1", "root_credentials_path": "x"` + more + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return c.RootHome
	}
	own := home("")
	if own == "" || own != home(`, "role_arn": "arn:aws:iam::123456789012:role/x"`) {
		t.Errorf("the root is at %q", own)
	}
	if own == home(`, "iam_endpoint": "https://iam.example.com"`) {
		t.Error("the users of another IAM are the same")
	}
}

func parse(document string) (engine.Role, error) {
	return aws.Type{}.ParseRole(json.RawMessage(document))
}

func TestRole(t *testing.T) {
	t.Parallel()
	const policy = `"policy_document": {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}`
	const role = `"role_arns": ["arn:aws:iam::123456789012:role/app"]`
	for _, good := range []string{
		`{"credential_type": "iam_user", ` + policy + `}`,
		`{"credential_type": "iam_user", "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"], "user_path": "/scaivault/a/b/"}`,
		`{"credential_type": "iam_user", "policy_document": "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"s3:*\",\"Resource\":\"*\"}]}"}`,
		`{"credential_type": "assumed_role", ` + role + `, ` + policy + `, "external_id": "abc"}`,
		`{"credential_type": "federation_token", ` + policy + `}`,
		`{"credential_type": "session_token"}`,
	} {
		if _, err := parse(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	statement := func(text string) string {
		return `{"credential_type": "iam_user", "policy_document": {"Version": "2012-10-17", "Statement": ` + text + `}}`
	}
	long := func(n int) string {
		return `"policy_document": {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "` + strings.Repeat("b", n) + `"}}`
	}
	for document, says := range map[string]string{
		`{}`:                              "credential_type",
		`{"credential_type": "user"}`:     "credential_type",
		`{"credential_type": "iam_user"}`: "gives nothing",
		`{"credential_type": "iam_user", "x": 1}`:                                                   "x",
		`{"credential_type": "iam_user", ` + policy + `, ` + role + `}`:                             "role_arns",
		`{"credential_type": "iam_user", ` + policy + `, "user_path": "/other/"}`:                   "user_path",
		`{"credential_type": "iam_user", ` + policy + `, "user_path": "/scaivault/x"}`:              "user_path",
		`{"credential_type": "iam_user", ` + policy + `, "iam_tags": {"scaivault:mark": "x"}}`:      "iam_tags",
		`{"credential_type": "iam_user", ` + policy + `, "iam_tags": {"AWS:x": "x"}}`:               "iam_tags",
		`{"credential_type": "iam_user", ` + policy + `, "iam_tags": {"a": "<"}}`:                   "iam_tags",
		`{"credential_type": "iam_user", "policy_arns": ["arn:aws:iam::aws:policy/*"]}`:             "policy_arns",
		`{"credential_type": "iam_user", "policy_arns": ["arn:aws:iam::123456789012:role/x"]}`:      "policy_arns",
		`{"credential_type": "iam_user", ` + policy + `, "iam_groups": ["a b"]}`:                    "iam_groups",
		`{"credential_type": "iam_user", ` + policy + `, "permissions_boundary_arn": "x"}`:          "permissions_boundary_arn",
		`{"credential_type": "iam_user", ` + policy + `, "end_sessions": true}`:                     "end_sessions",
		`{"credential_type": "iam_user", ` + long(1850) + `}`:                                       "2,048",
		`{"credential_type": "assumed_role", ` + role + `, ` + long(2000) + `}`:                     "2,048",
		`{"credential_type": "assumed_role"}`:                                                       "role_arns",
		`{"credential_type": "assumed_role", "role_arns": ["arn:aws:iam::123456789012:role/${x}"]}`: "role_arns",
		`{"credential_type": "assumed_role", ` + role + `, "wait_until_usable": true}`:              "wait_until_usable",
		`{"credential_type": "federation_token"}`:                                                   "gives nothing",
		`{"credential_type": "session_token", ` + policy + `}`:                                      "session_token",
		`{"credential_type": "iam_user", "policy_document": "{"}`:                                   "JSON",
		`{"credential_type": "iam_user", "policy_document": []}`:                                    "JSON",
		`{"credential_type": "iam_user", "policy_document": {"Statement": []}}`:                     "Version",
		statement(`[]`): "Statement",
		statement(`[{"Effect": "allow", "Action": "*", "Resource": "*"}]`):                   "Effect",
		statement(`[{"Effect": "Allow", "Resource": "*"}]`):                                  "Action",
		statement(`[{"Effect": "Allow", "Action": "*"}]`):                                    "Resource",
		statement(`[{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}]`): "Principal",
		statement(`[{"Effect": "Allow", "Actions": "*", "Resource": "*"}]`):                  "does not know",
	} {
		_, err := parse(document)
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), says) {
			t.Errorf("%.120s: %v", document, err)
		}
	}
}

// The lives that AWS gives are those that roles may ask for.
func TestBounds(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]string{
		`"assumed_role", "role_arns": ["arn:aws:iam::123456789012:role/app"]`: "{15m0s 12h0m0s true}",
		`"federation_token", "policy_arns": ["arn:aws:iam::aws:policy/A"]`:    "{15m0s 36h0m0s true}",
		`"session_token"`: "{15m0s 36h0m0s true}",
		`"iam_user", "policy_arns": ["arn:aws:iam::aws:policy/A"]`: "{0s 0s false}",
	} {
		r, err := parse(`{"credential_type": ` + kind + `}`)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.(engine.Bounded).Bounds()); got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
}
