//go:build cloud

package aws_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// consistent is how long a change may take to be known everywhere.
const consistent = time.Minute

// TestCloud runs the suite in a real account. The environment names an administrator of it, who makes
// the root of the guide, and removes it:
//
//	SCAIVAULT_TEST_AWS_ACCESS_KEY_ID, SCAIVAULT_TEST_AWS_SECRET_ACCESS_KEY, SCAIVAULT_TEST_AWS_REGION
//
// With SCAIVAULT_TEST_AWS_ENDPOINT it is another server that speaks IAM and STS.
func TestCloud(t *testing.T) {
	for _, name := range []string{"Issue", "NoSecretInRecipe", "NameTaken", "DeadlinePassed", "RevokeTwice", "RevokeUnknown", "RevokeEndsSessions",
		"Lookup", "WrongServer", "Renew", "PrepareTwice", "List", "RotateRoot", "Clock", "CloseTwice"} {
		t.Run(name, func(t *testing.T) { enginetest.RunCase(t, name, newCloud(t).target(t)) })
	}
}

// cloud is a root in a real account.
type cloud struct {
	*account
	admin *iam.Client
}

func variable(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv("SCAIVAULT_TEST_AWS_" + name)
	if value == "" {
		t.Fatalf("SCAIVAULT_TEST_AWS_%s is not set", name)
	}
	return value
}

func endpoint() *string {
	text := os.Getenv("SCAIVAULT_TEST_AWS_ENDPOINT")
	if text == "" {
		return nil
	}
	return &text
}

func cloudClients(id, secret string) (*iam.Client, *sts.Client) {
	who, region := credentials.NewStaticCredentialsProvider(id, secret, ""), os.Getenv("SCAIVAULT_TEST_AWS_REGION")
	return iam.New(iam.Options{Region: region, Credentials: who, BaseEndpoint: endpoint()}), sts.New(sts.Options{Region: region, Credentials: who, BaseEndpoint: endpoint()})
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	id := strings.TrimPrefix(ident.New("tnt"), "tnt_")
	c := &cloud{account: &account{region: variable(t, "REGION"), user: "scaivault-root-" + id, namer: statement.NewNamer("inst_"+id, []byte("key of the test"), nil)}}
	if to := endpoint(); to != nil {
		c.endpoint = *to
	}
	admin, sessions := cloudClients(variable(t, "ACCESS_KEY_ID"), variable(t, "SECRET_ACCESS_KEY"))
	c.admin = admin
	who, err := sessions.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	policy := strings.NewReplacer("user/scaivault-root", "user/"+c.user, "123456789012", *who.Account).Replace(guide(t, "aws-root"))
	policy = regexp.MustCompile(`\s+`).ReplaceAllString(policy, " ")
	t.Cleanup(func() { c.remove(t, c.user) })
	if _, err = admin.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &c.user}); err == nil {
		_, err = admin.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &c.user, PolicyName: sdk.String("root"), PolicyDocument: &policy})
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := admin.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &c.user})
	if err != nil {
		t.Fatal(err)
	}
	c.root.ID, c.root.Secret = *key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey
	mine, _ := cloudClients(c.root.ID, c.root.Secret)
	await(t, "root may list users", func() bool {
		_, err := mine.ListUsers(t.Context(), &iam.ListUsersInput{PathPrefix: sdk.String("/scaivault/")})
		return err == nil
	})
	return c
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(consistent); !holds(); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// remove ends a user of the test with all that the test gave it.
func (c *cloud) remove(t *testing.T, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	keys, err := c.admin.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: &name})
	if err == nil {
		for _, key := range keys.AccessKeyMetadata {
			_, err = c.admin.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: key.AccessKeyId})
		}
	}
	_, missing := c.admin.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: &name, PolicyName: sdk.String("root")})
	_, left := c.admin.DeleteUser(ctx, &iam.DeleteUserInput{UserName: &name})
	if left != nil {
		t.Logf("remove the user %s by hand: %v", name, errors.Join(err, missing, left))
	}
}

func (c *cloud) target(t *testing.T) *enginetest.Target {
	t.Helper()
	return &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			t.Helper()
			options := c.options(nil)
			options.Node = enginetest.Node
			if o.Root != nil {
				options.Root = o.Root
			}
			return open(t, options)
		},
		Elsewhere: func(t *testing.T) engine.Engine {
			t.Helper()
			return open(t, c.options(map[string]any{"source_id": "elsewhere"}))
		},
		Role:   c.roleOf(t, "iam_user", map[string]any{"wait_until_usable": true}),
		Public: []string{"access_key_id"},
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			s := cloudSession{c, data}
			return s, s.settled(ctx)
		},
		Exists: func(t *testing.T, name string) bool {
			t.Helper()
			return c.exists(t.Context(), name)
		},
		Plant: func(t *testing.T, name string) {
			t.Helper()
			if _, err := c.admin.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.remove(t, name) })
			await(t, "a stranger's user is seen", func() bool { return c.exists(t.Context(), name) })
		},
		End: func(t *testing.T, name string) time.Time {
			t.Helper()
			return c.ends(t, name)
		},
	}
}

func (c *cloud) exists(ctx context.Context, name string) bool {
	_, err := c.admin.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	return err == nil
}

func (c *cloud) keyExists(ctx context.Context, id string) bool {
	_, err := c.admin.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &id})
	return err == nil
}

var dateForm = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z`)

// ends is when the user's own policy ends it.
func (c *cloud) ends(t *testing.T, name string) (end time.Time) {
	t.Helper()
	out, err := c.admin.GetUserPolicy(t.Context(), &iam.GetUserPolicyInput{UserName: &name, PolicyName: sdk.String("scaivault-end")})
	if err == nil {
		var text string
		if text, err = url.QueryUnescape(*out.PolicyDocument); err == nil {
			end, err = time.Parse(time.RFC3339, dateForm.FindString(text))
		}
	}
	if err != nil {
		t.Fatalf("read the policy that ends %s: %v", name, err)
	}
	return end
}

// cloudSession is a credential in use.
type cloudSession struct {
	cloud *cloud
	data  map[string]statement.Secret
}

func (s cloudSession) try(ctx context.Context) error {
	k := keysOf(s.data)
	users, _ := cloudClients(k.ID, k.Secret)
	_, err := users.ListGroups(ctx, &iam.ListGroupsInput{})
	return err
}

// settled tries until it is as it must be: used where its key is there, refused where it is not. AWS
// takes some seconds to hear of either.
func (s cloudSession) settled(ctx context.Context) error {
	err := s.try(ctx)
	for begun := time.Now(); time.Since(begun) < consistent; err = s.try(ctx) {
		if (err == nil) == s.cloud.keyExists(ctx, s.data["access_key_id"].Reveal()) {
			break
		}
		time.Sleep(time.Second)
	}
	return err
}

func (s cloudSession) Works(ctx context.Context) bool { return s.settled(ctx) == nil }
func (s cloudSession) Close()                         {}
