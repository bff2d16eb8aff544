package gcp_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/gcp"
	"github.com/scaivault/scaivault/internal/fault"
)

func TestRole(t *testing.T) {
	t.Parallel()
	const token = `{"credential_type": "access_token", "service_account_email": "app@my-project-123.iam.gserviceaccount.com"`
	for document, longest := range map[string]time.Duration{
		keyOfAnAccount: 0, keyOfItsOwn: 0, googleKeyOfOwn: 0, tokenOfItsOwn: time.Hour, token + `}`: time.Hour,
		token + `, "extended_token_lifetime": true}`:                                                                             12 * time.Hour,
		token + `, "token_scopes": ["https://www.googleapis.com/auth/devstorage.read_only"]}`:                                    time.Hour,
		`{"credential_type": "access_token", "service_account_email": "app@my-project-123.example.com.iam.gserviceaccount.com"}`: time.Hour,
		`{"credential_type": "access_token", "bindings": [{"resource": "folders/123", "roles": ["roles/a.b"]}, {"resource": "organizations/1", "roles": ["organizations/1/roles/c", "projects/abcdef/roles/d"]}]}`: time.Hour,
	} {
		r, err := gcp.Type{}.ParseRole(json.RawMessage(document))
		if err != nil {
			t.Errorf("%s: %v", document, err)
			continue
		}
		if b := r.(engine.Bounded).Bounds(); b.Longest != longest || !b.Fixed {
			t.Errorf("%s: %+v", document, b)
		}
	}
}

func TestRoleRefuses(t *testing.T) {
	t.Parallel()
	account := func(email string) string {
		return `{"credential_type": "service_account_key", "service_account_email": "` + email + `"}`
	}
	bindings := func(list string) string {
		return `{"credential_type": "service_account_key", "bindings": [` + list + `]}`
	}
	const email = "app@my-project-123.iam.gserviceaccount.com"
	many := strings.Repeat(`{"resource": "projects/abcdef", "roles": ["roles/a"]},`, 21)
	for document, says := range map[string]string{
		`{}`:                                  "credential_type",
		`{"credential_type": "password"}`:     "credential_type",
		`{"credential_type": "access_token"}`: "either",
		`{"credential_type": "access_token", "project": "x"}`: "project",
		`{"credential_type": "access_token", "service_account_email": "` + email + `", "bindings": [{"resource": "projects/abcdef", "roles": ["roles/a"]}]}`: "either",
		`{"credential_type": "access_token", "service_account_email": "` + email + `", "token_scopes": ["https://evil.example/auth"]}`:                       "token_scopes",
		`{"credential_type": "access_token", "service_account_email": "` + email + `", "key_origin": "uploaded"}`:                                            "key_origin",
		`{"credential_type": "service_account_key", "service_account_email": "` + email + `", "token_scopes": []}`:                                           "token_scopes",
		`{"credential_type": "service_account_key", "service_account_email": "` + email + `", "key_origin": "google"}`:                                       "mark",
		`{"credential_type": "service_account_key", "service_account_email": "` + email + `", "key_origin": "ours"}`:                                         "key_origin",
		account("somebody@example.com"):                                                                                          "service_account_email",
		account("a/../b@my-project-123.iam.gserviceaccount.com"):                                                                 "service_account_email",
		account("app@my-project-123.iam.gserviceaccount.com/keys/1"):                                                             "service_account_email",
		account("app@my-project-123.iam.gserviceaccount.com:signBlob?x="):                                                        "service_account_email",
		account("app@evil/my-project-123.iam.gserviceaccount.com"):                                                               "service_account_email",
		bindings(`{"resource": "projects/abcdef", "roles": []}`):                                                                 "no roles",
		bindings(`{"resource": "projects/abcdef", "roles": ["roles/owner"]}`):                                                    "basic role",
		bindings(`{"resource": "projects/abcdef", "roles": ["roles/editor"]}`):                                                   "basic role",
		bindings(`{"resource": "projects/abcdef", "roles": ["viewer"]}`):                                                         "not a role",
		bindings(`{"resource": "projects/abcdef", "roles": ["roles/a", "roles/a"]}`):                                             "twice",
		bindings(`{"resource": "projects/abcdef", "roles": ["roles/a"]}, {"resource": "projects/abcdef", "roles": ["roles/b"]}`): "twice",
		bindings(`{"resource": "projects/abcdef:setIamPolicy", "roles": ["roles/a"]}`):                                           "not a resource",
		bindings(`{"resource": "projects/abcdef/../other1", "roles": ["roles/a"]}`):                                              "not a resource",
		bindings(`{"resource": "buckets/x", "roles": ["roles/a"]}`):                                                              "not a resource",
		bindings(`{"resource": "folders/x", "roles": ["roles/a"]}`):                                                              "not a resource",
		bindings(`{"resource": "projects/abcdef/topics/a?b", "roles": ["roles/a"]}`):                                             "not a resource",
		bindings(strings.TrimSuffix(many, ",")):                                                                                  "20",
	} {
		if _, err := (gcp.Type{}).ParseRole(json.RawMessage(document)); fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", document, err)
		}
	}
}
