package aws_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/aws"
	"github.com/scaivault/scaivault/test/awstest"
)

// keys are the ids of root's access keys.
func (a *account) keys(t *testing.T) (ids []string) {
	t.Helper()
	out, err := a.front.Admin().ListAccessKeys(t.Context(), &iam.ListAccessKeysInput{UserName: &a.user})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range out.AccessKeyMetadata {
		ids = append(ids, *key.AccessKeyId)
	}
	return ids
}

// A key whose making was not answered is nobody's: the next rotation ends it, and the present root
// works all the time (law L9).
func TestRotationLost(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	a.front.SetFault(func(action string) awstest.Fault {
		if action == "CreateAccessKey" {
			return awstest.LoseAfter
		}
		return awstest.None
	})
	if _, err := e.PlanRoot(t.Context()); engine.KindOf(err) != engine.Uncertain {
		t.Fatalf("%v", err)
	}
	a.front.SetFault(nil)
	if n := len(a.keys(t)); n != 2 {
		t.Fatalf("root has %d keys", n)
	}
	again := a.open(t) // as after a crash
	candidate, err := again.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.SetRoot(t.Context(), candidate); err != nil {
		t.Fatal(err)
	}
	if ids := a.keys(t); !slices.Equal(ids, []string{candidate["access_key_id"].Reveal()}) {
		t.Errorf("root has the keys %v", ids)
	}
	tags, err := a.front.Admin().ListUserTags(t.Context(), &iam.ListUserTagsInput{UserName: &a.user})
	if err != nil || len(tags.Tags) != 0 {
		t.Errorf("tags are left: %v %v", tags, err)
	}
	issue(t, again, a.roleOf(t, "iam_user"), time.Hour)
}

// A second key that somebody made by hand is not ScaiVault's to delete.
func TestRotationBesideAStrangersKey(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	made, err := a.front.Admin().CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &a.user})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.PlanRoot(t.Context())
	if engine.KindOf(err) != engine.Refused || !strings.Contains(reason(err), *made.AccessKey.AccessKeyId) {
		t.Errorf("%v", err)
	}
	if n := len(a.keys(t)); n != 2 {
		t.Errorf("root has %d keys", n)
	}
}

// AWS takes a new key only after a while: the former one is not deleted before.
func TestRotationWaits(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	a.front.SetLag(time.Second)
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetRoot(t.Context(), candidate); err != nil {
		t.Fatal(err)
	}
	if n := len(a.keys(t)); n != 1 {
		t.Errorf("root has %d keys", n)
	}
}

// Only a user's own key can be rotated: a session's is STS's.
func TestRotationOfASession(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	o := a.options(nil)
	o.Root["session_token"] = "token"
	if _, err := (aws.Type{}).Open(t.Context(), o); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("%v", err)
	}
}

// A rotation that could not delete the former key deletes it when it is repeated, by the same engine too.
func TestRotationRepeated(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.front.SetFault(func(action string) awstest.Fault {
		if action == "DeleteAccessKey" {
			return awstest.LoseBefore
		}
		return awstest.None
	})
	if err := e.SetRoot(t.Context(), candidate); engine.KindOf(err) != engine.Uncertain {
		t.Fatalf("%v", err)
	}
	a.front.SetFault(nil)
	if err := e.SetRoot(t.Context(), candidate); err != nil {
		t.Fatal(err)
	}
	if ids := a.keys(t); !slices.Equal(ids, []string{candidate["access_key_id"].Reveal()}) {
		t.Errorf("root has the keys %v", ids)
	}
}

// A rotation that AWS refused has made no key: the one that somebody then makes by hand is not ScaiVault's.
func TestRotationRefused(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	a.front.SetFault(func(action string) awstest.Fault {
		if action == "CreateAccessKey" {
			return awstest.Conflict
		}
		return awstest.None
	})
	if _, err := e.PlanRoot(t.Context()); engine.KindOf(err) != engine.Refused {
		t.Fatalf("%v", err)
	}
	a.front.SetFault(nil)
	made, err := a.front.Admin().CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &a.user})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.PlanRoot(t.Context()); engine.KindOf(err) != engine.Refused || !slices.Contains(a.keys(t), *made.AccessKey.AccessKeyId) {
		t.Errorf("a key that somebody made by hand was deleted: %v", err)
	}
}
