//go:build rgw

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/awstest"
	"github.com/scaivault/scaivault/test/rgwtest"
)

// TestRGWEndsUsers: a server of IAM that is nobody's emulation evaluates the policy that ends a user, at
// its moment and not before, while no ScaiVault runs. Others of the same rights work on: one whose end is
// later, and one without that policy.
//
// Removing the user is not tried: RGW keeps no tags of users, so ScaiVault takes none there for its own.
func TestRGWEndsUsers(t *testing.T) {
	t.Parallel()
	v, rgw := newVault(t), rgwtest.Start(t)
	v.rgwEngine(t, rgw)
	control := rgwUser(t, rgw, "control", listGroups)
	v.remember(control.Secret)

	kept := v.generate(t, "reader", api.CredsRequest{})
	minute := api.Duration(time.Minute)
	short := v.generate(t, "reader", api.CredsRequest{TTL: &minute})
	name := v.lease(t, short.LeaseID).Username
	v.Stop(t)

	all := map[string]awstest.Keys{"control": control, "kept": awsKeys(kept), "short": awsKeys(short)}
	for who, keys := range all {
		if err := rgwTry(t, rgw, keys); err != nil {
			t.Errorf("%s, %s before the end of short: %v", who, time.Until(short.ExpiresAt).Round(time.Second), err)
		}
	}
	refused := rgwAwaitEnd(t, rgw, all["short"], short.ExpiresAt)
	t.Logf("short is refused %s after its end", refused.Sub(short.ExpiresAt).Round(time.Millisecond))
	for _, who := range []string{"control", "kept"} {
		if err := rgwTry(t, rgw, all[who]); err != nil {
			t.Errorf("%s after the end of short: %v", who, err)
		}
	}
	if !slices.Contains(rgwUsers(t, rgw), name) {
		t.Errorf("the user %s is gone: nobody was there to remove it", name)
	}
}

func (v *vault) rgwEngine(t *testing.T, rgw *rgwtest.Server) {
	t.Helper()
	v.remember(rgw.Root.Secret)
	_, err := v.admin.WriteSecret(t.Context(), rootPath("cloud"), api.SecretWrite{Data: map[string]json.RawMessage{
		"access_key_id": quoted(rgw.Root.ID), "secret_access_key": quoted(rgw.Root.Secret),
	}})
	if err != nil {
		t.Fatalf("write the root secret: %v", err)
	}
	config, err := json.Marshal(map[string]string{
		"region": awstest.Region, "root_credentials_path": rootPath("cloud"), "iam_endpoint": rgw.URL, "sts_endpoint": rgw.Identity, "consistency_delay": "2s",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "cloud", Type: "aws", Config: config}); err != nil {
		t.Fatalf("make the engine: %v", err)
	}
	v.role(t, "cloud", client.Document{"name": "reader", "credential_type": "iam_user", "policy_document": listGroups})
}

// rgwAwaitEnd uses keys until they are refused, which must be at their end: whole seconds are compared.
func rgwAwaitEnd(t *testing.T, rgw *rgwtest.Server, keys awstest.Keys, end time.Time) (refused time.Time) {
	t.Helper()
	if !time.Now().Before(end) {
		t.Fatal("the machine is too slow: the end came before the credential was tried")
	}
	time.Sleep(time.Until(end) - 3*time.Second)
	for {
		begun := time.Now()
		err := rgwTry(t, rgw, keys)
		now := time.Now()
		switch {
		case forbidden(err) && now.Before(end.Truncate(time.Second)):
			t.Fatalf("it is refused %s before its end", end.Sub(now))
		case forbidden(err):
			return now
		case err != nil:
			t.Fatalf("use it: %v", err)
		case begun.After(end.Add(2 * time.Second)):
			t.Fatalf("it works %s after its end", begun.Sub(end))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func rgwUser(t *testing.T, rgw *rgwtest.Server, name, policy string) awstest.Keys {
	t.Helper()
	root := rgwClient(rgw, rgw.Root)
	_, err := root.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name})
	if err == nil {
		_, err = root.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &name, PolicyName: aws.String("role"), PolicyDocument: &policy})
	}
	if err != nil {
		t.Fatalf("make the user %s: %v", name, err)
	}
	made, err := root.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		t.Fatalf("make a key of %s: %v", name, err)
	}
	return awstest.Keys{ID: *made.AccessKey.AccessKeyId, Secret: *made.AccessKey.SecretAccessKey}
}

func rgwClient(rgw *rgwtest.Server, keys awstest.Keys) *iam.Client {
	who := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: keys.ID, SecretAccessKey: keys.Secret}, nil
	})
	return iam.New(iam.Options{Region: awstest.Region, Credentials: who, BaseEndpoint: &rgw.URL, Retryer: aws.NopRetryer{}})
}

func rgwTry(t *testing.T, rgw *rgwtest.Server, keys awstest.Keys) error {
	t.Helper()
	_, err := rgwClient(rgw, keys).ListGroups(t.Context(), &iam.ListGroupsInput{})
	return err
}

func rgwUsers(t *testing.T, rgw *rgwtest.Server) []string {
	t.Helper()
	all, err := rgwClient(rgw, rgw.Root).ListUsers(t.Context(), &iam.ListUsersInput{})
	if err != nil {
		t.Fatalf("list the users: %v", err)
	}
	var names []string
	for _, u := range all.Users {
		names = append(names, *u.UserName)
	}
	return names
}

// forbidden tells a refusal by its status: RGW's refusals have no body that the client could read.
func forbidden(err error) bool {
	var answer interface{ HTTPStatusCode() int }
	return errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusForbidden
}
