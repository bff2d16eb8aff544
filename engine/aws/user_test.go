package aws_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/awstest"
)

// A user dies at AWS by its own policy when its lease's end has passed, whatever ScaiVault does, and
// renewal moves that moment.
func TestEndAtAWS(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	if err := a.try(t.Context(), c.Data, "iam_user"); err != nil {
		t.Fatalf("use a credential: %v", err)
	}
	if err := e.Renew(t.Context(), c.recipe, time.Now().Add(-2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := a.try(t.Context(), c.Data, "iam_user"); err == nil {
		t.Error("a credential works after its end")
	}
	if err := e.Renew(t.Context(), c.recipe, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := a.try(t.Context(), c.Data, "iam_user"); err != nil {
		t.Errorf("a renewed credential does not work: %v", err)
	}
	revoke(t, e, c.recipe)
}

// What the role says is what the user gets: path, tags, groups, policies.
func TestUserOfARole(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	o := a.options(nil)
	e := open(t, o)
	admin := a.front.Admin()
	group := "readers-" + strings.ToLower(a.user)
	if _, err := admin.CreateGroup(t.Context(), &iam.CreateGroupInput{GroupName: &group}); err != nil {
		t.Fatal(err)
	}
	const managed = "arn:aws:iam::aws:policy/ReadOnlyAccess"
	role := a.roleOf(t, "iam_user", map[string]any{"policy_arns": []string{managed}, "iam_groups": []string{group},
		"user_path": "/scaivault/team/", "iam_tags": map[string]string{"team": "a"}})
	if warnings, err := e.PrepareRole(t.Context(), "reader", role); err != nil || len(warnings) > 0 {
		t.Errorf("%v %v", warnings, err)
	}
	c := issue(t, e, role, time.Hour)
	u, err := admin.GetUser(t.Context(), &iam.GetUserInput{UserName: &c.Username})
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{}
	for _, tag := range u.User.Tags {
		tags[*tag.Key] = *tag.Value
	}
	if *u.User.Path != "/scaivault/team/" || tags["team"] != "a" || tags["scaivault:lease"] != c.LeaseID || tags["scaivault:engine"] != o.EngineID {
		t.Errorf("path %s, tags %v", *u.User.Path, tags)
	}
	attached, err := admin.ListAttachedUserPolicies(t.Context(), &iam.ListAttachedUserPoliciesInput{UserName: &c.Username})
	if err != nil || len(attached.AttachedPolicies) != 1 || *attached.AttachedPolicies[0].PolicyArn != managed {
		t.Errorf("%+v %v", attached, err)
	}
	groups, err := admin.ListGroupsForUser(t.Context(), &iam.ListGroupsForUserInput{UserName: &c.Username})
	if err != nil || len(groups.Groups) != 1 {
		t.Errorf("%+v %v", groups, err)
	}
	outcome := revoke(t, e, c.recipe)
	if outcome.EffectiveAt == nil || time.Until(*outcome.EffectiveAt) > time.Second {
		t.Errorf("a key that was just deleted is dead %v", outcome.EffectiveAt)
	}
	if outcome = revoke(t, e, c.recipe); outcome.EffectiveAt == nil {
		t.Error("a key that may have been deleted a moment ago is said to be dead everywhere")
	}
	if slices.Contains(a.front.Users(t), c.Username) {
		t.Error("the user is there")
	}
}

// A name that a role is saved with and that is not there is named; what root may not look up warns.
func TestPrepareRole(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	for field, role := range map[string]map[string]any{
		"policy_arns": {"policy_arns": []string{"arn:aws:iam::aws:policy/NoSuchPolicy"}},
		"iam_groups":  {"iam_groups": []string{"no-such-group"}},
		"permissions": {"permissions_boundary_arn": "arn:aws:iam::123456789012:policy/none"},
	} {
		_, err := e.PrepareRole(t.Context(), "reader", a.roleOf(t, "iam_user", role))
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := e.PrepareRole(t.Context(), "deployer", a.roleOf(t, "assumed_role", map[string]any{"role_arns": []string{a.role + "x"}}))
	if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), a.role+"x") {
		t.Errorf("an unknown role: %v", err)
	}
	warnings, err := e.PrepareRole(t.Context(), "deployer", a.roleOf(t, "assumed_role", map[string]any{"role_arns": []string{"arn:aws:iam::999999999999:role/theirs"}}))
	if err != nil || len(warnings) != 1 {
		t.Errorf("another account's role: %v %v", warnings, err)
	}
	if warnings, err = e.PrepareRole(t.Context(), "all", a.roleOf(t, "session_token")); err != nil || len(warnings) != 1 {
		t.Errorf("session_token: %v %v", warnings, err)
	}
}

// Where a step fails, what was made before is taken back; the reason is the source's.
func TestHalfMadeIsTakenBack(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	p := plan(t, e, a.roleOf(t, "iam_user", map[string]any{"iam_groups": []string{"no-such-group"}}), time.Hour)
	_, err := e.Issue(t.Context(), p)
	if engine.KindOf(err) != engine.Refused || !strings.Contains(reason(err), "no-such-group") {
		t.Errorf("%v", err)
	}
	if slices.Contains(a.front.Users(t), p.Username) {
		t.Error("the user was left behind")
	}
}

func reason(err error) string {
	var known *engine.Error
	if errors.As(err, &known) {
		return known.Reason
	}
	return ""
}

// A new key is answered when AWS takes it, where the role wants that.
func TestWaitUntilUsable(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	a.front.SetLag(time.Second)
	c := issue(t, e, a.roleOf(t, "iam_user", map[string]any{"wait_until_usable": true}), time.Hour)
	if err := a.try(t.Context(), c.Data, "iam_user"); err != nil {
		t.Errorf("a key that was waited for does not work: %v", err)
	}
	revoke(t, e, c.recipe)

	a.front.SetLag(time.Hour)
	p := plan(t, open(t, a.options(map[string]any{"operation_timeout": "2s", "connect_timeout": "2s"})), a.roleOf(t, "iam_user", map[string]any{"wait_until_usable": true}), time.Hour)
	p.Deadline = time.Now().Add(3 * time.Second)
	if _, err := e.Issue(t.Context(), p); err == nil {
		t.Error("a key that does not work was answered")
	}
}

// What a credential gave itself keeps its user, which may do nothing any more; it is named.
func TestResidue(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	a.front.SetFault(func(action string) awstest.Fault {
		if action == "DeleteUser" {
			return awstest.Conflict
		}
		return awstest.None
	})
	outcome := revoke(t, e, c.recipe)
	if !strings.Contains(outcome.Residue, c.Username) || !strings.Contains(outcome.Residue, "delete-user") {
		t.Errorf("residue %q", outcome.Residue)
	}
	if err := a.try(t.Context(), c.Data, "iam_user"); err == nil {
		t.Error("a residue can still be used")
	}
	a.front.SetFault(nil)
	if outcome := revoke(t, e, c.recipe); outcome.Residue != "" || slices.Contains(a.front.Users(t), c.Username) {
		t.Errorf("residue %q", outcome.Residue)
	}
}

// A key beside the lease's, a password and policies that a credential gave itself go, too.
func TestRevokeTakesWhatItGaveItself(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	admin := a.front.Admin()
	second, err := admin.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &c.Username})
	if err != nil {
		t.Fatal(err)
	}
	password, name, everything := "a-Long-one-1!", "own", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	if _, err := admin.CreateLoginProfile(t.Context(), &iam.CreateLoginProfileInput{UserName: &c.Username, Password: &password}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &c.Username, PolicyName: &name, PolicyDocument: &everything}); err != nil {
		t.Fatal(err)
	}
	revoke(t, e, c.recipe)
	theirs, _ := a.front.Clients(awstest.Keys{ID: *second.AccessKey.AccessKeyId, Secret: *second.AccessKey.SecretAccessKey})
	if _, err := theirs.ListGroups(t.Context(), &iam.ListGroupsInput{}); err == nil {
		t.Error("a second key works")
	}
	if slices.Contains(a.front.Users(t), c.Username) {
		t.Error("the user is there")
	}
}

// Users of the same name that were made anew are not the lease's.
func TestAnotherUserOfTheName(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	var recipe map[string]any
	if err := json.Unmarshal(c.recipe, &recipe); err != nil {
		t.Fatal(err)
	}
	recipe["user_id"] = "AIDAANOTHER"
	raw, _ := json.Marshal(recipe) //nolint:errchkjson // decoded from JSON
	revoke(t, e, raw)
	if !slices.Contains(a.front.Users(t), c.Username) {
		t.Error("a user of another id was removed")
	}
	revoke(t, e, c.recipe)
}

// A user of ours is told by a mark over its name: neither one of another user, nor another
// installation's, makes a user ours.
func TestForeignMark(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	path, key := "/scaivault/", "scaivault:mark"
	for _, mark := range []string{a.namer.Mark("aws/v_another"), a.namer.Mark("x"), ""} {
		p := plan(t, e, a.roleOf(t, "iam_user"), time.Hour)
		if _, err := a.front.Admin().CreateUser(t.Context(), &iam.CreateUserInput{UserName: &p.Username, Path: &path, Tags: []types.Tag{{Key: &key, Value: &mark}}}); err != nil {
			t.Fatal(err)
		}
		if presence, err := e.Lookup(t.Context(), p.Recipe); err != nil || presence.State != engine.Foreign {
			t.Errorf("mark %q: %+v, %v", mark, presence, err)
		}
		revoke(t, e, p.Recipe)
		if !slices.Contains(a.front.Users(t), p.Username) {
			t.Errorf("mark %q: the user was removed", mark)
		}
	}
}

// A key is dead everywhere some time after it was deleted, not after somebody began to: IAM may be slow.
func TestSlowRevocation(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	var at atomic.Int64
	a.front.SetFault(func(action string) awstest.Fault {
		if action == "DeleteAccessKey" {
			time.Sleep(2 * time.Second)
			at.Store(time.Now().UnixNano())
		}
		return awstest.None
	})
	outcome := revoke(t, e, c.recipe)
	if deleted := time.Unix(0, at.Load()); outcome.EffectiveAt == nil || outcome.EffectiveAt.Before(deleted) {
		t.Errorf("a key that was deleted at %s is said to be dead everywhere at %v", deleted, outcome.EffectiveAt)
	}
}

// A credential whose user has lost its tags, to a policy about tags or to its holder, is revoked: AWS told
// its id when it was made. One that was only found in the list is not.
func TestUntaggedUser(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	if _, err := a.front.Admin().UntagUser(t.Context(), &iam.UntagUserInput{UserName: &c.Username, TagKeys: []string{"scaivault:mark"}}); err != nil {
		t.Fatal(err)
	}
	listed, err := e.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listed {
		if l.Username == c.Username {
			revoke(t, e, l.Recipe)
		}
	}
	if !slices.Contains(a.front.Users(t), c.Username) {
		t.Error("a user without a mark was removed by its name alone")
	}
	revoke(t, e, c.recipe)
	if slices.Contains(a.front.Users(t), c.Username) {
		t.Error("a credential is said to be dead, and its user is there")
	}
}
