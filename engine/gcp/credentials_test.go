package gcp_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/gcp"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	audience = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool-1/providers/provider-1"
	subject  = "a-token-of-another-issuer"
	jwtType  = "urn:ietf:params:oauth:token-type:jwt"
	exchange = "https://sts.googleapis.com/v1/token"
)

// federation is a file of a workload identity federation, with some of its fields changed.
func federation(t *testing.T, changed map[string]any) statement.Secret {
	t.Helper()
	file := map[string]any{"type": "external_account", "audience": audience, "subject_token_type": jwtType, "token_url": exchange}
	for name, value := range changed {
		file[name] = value
	}
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return statement.Secret(text)
}

// A federation's token is exchanged, straight or for one of a service account.
func TestFederation(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	const member = "principal://iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool-1/subject/scaivault"
	s.AllowSubject(audience, subject, member)
	s.Grant(project, rootRole, member)
	for name, changed := range map[string]map[string]any{
		"straight":           nil,
		"for a root account": {"service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + s.email + ":generateAccessToken"},
	} {
		o := s.options(nil)
		o.Root = map[string]statement.Secret{"credentials": federation(t, changed), "subject_token": subject}
		e := open(t, o)
		for _, role := range []string{keyOfAnAccount, tokenOfItsOwn} {
			p, r := issue(t, e, role)
			if h, err := s.login(t.Context(), p.Data); err != nil || !h.Works(t.Context()) {
				t.Errorf("%s: the credential does not work: %v", name, err)
			}
			revoke(t, e, r)
		}
		if _, err := e.PlanRoot(t.Context()); engine.KindOf(err) != engine.Refused {
			t.Errorf("%s: a federation's root is rotated: %v", name, err)
		}
	}
	o := s.options(nil)
	o.Root = map[string]statement.Secret{"credentials": federation(t, nil), "subject_token": "hunter2"}
	if _, err := (gcp.Type{}).Open(t.Context(), o); engine.KindOf(err) != engine.Misconfigured || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a token that Google refuses: %v", err)
	}
}

// Whoever writes the root secret chooses no file, address or program of this machine, and nobody but
// Google is shown the root. Nothing is sent for a root that is refused.
func TestRootRefuses(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	key := func(field, value string) map[string]statement.Secret {
		var file map[string]any
		if err := json.Unmarshal([]byte(s.root["credentials"].Reveal()), &file); err != nil {
			t.Fatal(err)
		}
		file[field] = value
		text, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]statement.Secret{"credentials": statement.Secret(text)}
	}
	federated := func(field string, value any) map[string]statement.Secret {
		return map[string]statement.Secret{"credentials": federation(t, map[string]any{field: value}), "subject_token": subject}
	}
	for name, c := range map[string]struct {
		root map[string]statement.Secret
		says string
	}{
		"nothing":                    {nil, "credentials"},
		"no JSON":                    {map[string]statement.Secret{"credentials": "hunter2"}, "credentials"},
		"a user":                     {key("type", "authorized_user"), "type"},
		"an impersonation":           {key("type", "impersonated_service_account"), "type"},
		"a GDC":                      {key("type", "gdch_service_account"), "type"},
		"an external user":           {key("type", "external_account_authorized_user"), "type"},
		"another token_uri":          {key("token_uri", "https://evil.example/token"), "token_uri"},
		"another universe":           {key("universe_domain", "evil.example"), "universe"},
		"no account":                 {key("client_email", "somebody@example.com"), "client_email"},
		"no key":                     {key("private_key", "hunter2"), "private_key"},
		"a file":                     {federated("credential_source", map[string]any{"file": "/etc/passwd"}), "credential_source"},
		"a URL":                      {federated("credential_source", map[string]any{"url": "http://169.254.169.254/"}), "credential_source"},
		"a program":                  {federated("credential_source", map[string]any{"executable": map[string]any{"command": "/bin/sh"}}), "credential_source"},
		"an environment":             {federated("credential_source", map[string]any{"environment_id": "aws1"}), "credential_source"},
		"a certificate":              {federated("credential_source", map[string]any{"certificate": map[string]any{}}), "credential_source"},
		"another token_url":          {federated("token_url", "https://sts.evil.example/v1/token"), "token_url"},
		"an audience elsewhere":      {federated("audience", "//evil.example"), "audience"},
		"a workforce":                {federated("audience", "//iam.googleapis.com/locations/global/workforcePools/p/providers/q"), "audience"},
		"AWS":                        {federated("subject_token_type", "urn:ietf:params:aws:token-type:aws4_request"), "subject_token_type"},
		"an impersonation elsewhere": {federated("service_account_impersonation_url", "https://evil.example/v1/projects/-/serviceAccounts/x:generateAccessToken"), "impersonation"},
		"an unknown field":           {federated("quota_project_id", "x"), "other fields"},
		"no subject token":           {map[string]statement.Secret{"credentials": federation(t, nil)}, "subject_token"},
	} {
		o := s.options(nil)
		o.Root = c.root
		before := len(s.Log())
		_, err := gcp.Type{}.Open(t.Context(), o)
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
		if len(s.Log()) != before {
			t.Errorf("%s: something was sent", name)
		}
	}
}
