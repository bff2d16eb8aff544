package failpoints_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/awstest"
)

// accounts is the AWS of this package; every scenario has a root of its own in it.
var accounts awstest.Pool

// TestCrashMatrixAWS kills the server at every point that is reached with AWS, with every type of
// credential: a user is made and ended in many requests, a session is nobody's until its answer was read,
// and the next root exists at the source before anybody has written it down.
func TestCrashMatrixAWS(t *testing.T) {
	t.Parallel()
	in := func(credential awsCredential) func(t *testing.T, role string) target {
		return func(t *testing.T, role string) target { return inAWS(t, role, credential) }
	}
	users := append(everywhere(), scenario{point: failpoint.Emptied, reach: revoking, found: closed, ends: true})
	users[slices.IndexFunc(users, func(s scenario) bool { return s.point == failpoint.R4 })].reach = revokingBehindTheAnswer
	// A root of sessions is rotated as one of users is: once is enough. They cannot be renewed.
	rotations := of(everywhere(), failpoint.RootPlanned, failpoint.RootKept, failpoint.RootSent, failpoint.RootSet,
		failpoint.RootProved, failpoint.RootPromoted, failpoint.RootDone)
	denied := scenario{point: failpoint.R2, reach: revoking, found: promised, ends: true}
	playAll(t, []variant{
		{name: "iam_user", scenarios: users, target: in(awsCredential{kind: "iam_user"}), short: []failpoint.Point{
			failpoint.F4, failpoint.F5, failpoint.Disabled, failpoint.R2, failpoint.RootSent, failpoint.RootPlanned, failpoint.RootProved}},
		{name: "assumed_role", scenarios: ofSessions(), target: in(awsCredential{kind: "assumed_role"})},
		{name: "assumed_role denied", scenarios: slices.Concat(ofSessions(), []scenario{denied}, rotations),
			target: in(awsCredential{kind: "assumed_role", denied: true}), short: []failpoint.Point{failpoint.R2}},
		{name: "assumed_role denied to its end", scenarios: toTheEnd(failpoint.R2, failpoint.R3, failpoint.R4, failpoint.R5),
			target: in(awsCredential{kind: "assumed_role", denied: true, life: sessionLife})},
		{name: "federation_token", scenarios: ofSessions(), target: in(awsCredential{kind: "federation_token"}), short: []failpoint.Point{failpoint.F5}},
		{name: "session_token", scenarios: ofSessions(), target: in(awsCredential{kind: "session_token"}), short: []failpoint.Point{failpoint.R3}},
		{name: "session_token to its end", scenarios: toTheEnd(failpoint.R4), target: in(awsCredential{kind: "session_token", life: sessionLife})},
	}, nil)
}

// sessionLife is the life of a session whose end is waited for: long beside what must come before, which takes
// a second, and short beside the minute for which a server's death is waited for.
const sessionLife = 30 * time.Second

// ofSessions are the points that are reached while a session of STS lives. It cannot be looked up: that of an
// issuance which got as far as its intent counts as living, and as revoked no sooner than it ends.
func ofSessions() []scenario {
	all := of(everywhere(), failpoint.F1, failpoint.IntentOpen, failpoint.F2, failpoint.F3, failpoint.F4, failpoint.F5, failpoint.F6,
		failpoint.Found, failpoint.F7, failpoint.F8, failpoint.F9, failpoint.Fenced, failpoint.R1, failpoint.R3, failpoint.R5)
	for k, s := range all {
		switch s.point {
		case failpoint.F2, failpoint.F3, failpoint.F4, failpoint.F5:
			all[k].found = unconfirmed
		case failpoint.Fenced, failpoint.R1, failpoint.R3, failpoint.R5:
			all[k].found = promised
		}
	}
	return all
}

// toTheEnd are points that are reached when a session which was revoked has ended by itself.
func toTheEnd(points ...failpoint.Point) (all []scenario) {
	for _, p := range points {
		all = append(all, scenario{point: p, reach: endingByItself, found: closed, ends: true})
	}
	return all
}

// endingByItself dies when the session that was revoked has ended.
func endingByItself(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	node := w.first()
	l, err := node.Admin(t).RevokeLease(t.Context(), subject.LeaseID, patience)
	if err != nil || l == nil || l.Revocation.EffectiveAt == nil {
		t.Fatalf("revoke: %+v, %v", l, err)
	}
	node.Arm(t, arm)
	node.AwaitDeath(t)
	node.Arm(t)
	if early := time.Until(*l.Revocation.EffectiveAt); early > 0 {
		t.Errorf("the server came to %s %s before the session ends", arm, early)
	}
}

// awsCredential is what a role of AWS gives.
type awsCredential struct {
	kind   string        // its credential_type
	denied bool          // with end_sessions
	life   time.Duration // of a session that is waited for; zero for what was asked for
}

// inAWS makes a root with the policies of the guide.
func inAWS(t *testing.T, role string, c awsCredential) target {
	t.Helper()
	const allowed = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:ListGroups","Resource":"*"}]}`
	server := accounts.Shared(t)
	front, name := server.Front(t), "scaivault-root-"+role
	root := front.User(t, "/", name, strings.ReplaceAll(awsPolicy(t, "aws-root"), "user/scaivault-root", "user/"+name))
	front.SetLife(c.life)
	target := target{
		engine:  "aws",
		config:  client.Document{"region": awstest.Region, "iam_endpoint": front.URL, "sts_endpoint": front.URL, "consistency_delay": "1s"},
		form:    client.Document{"credential_type": c.kind},
		root:    map[string]string{"access_key_id": root.ID, "secret_access_key": root.Secret},
		lasting: c.kind != "iam_user" && c.life == 0,
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			users, sessions := front.Clients(awstest.Keys{ID: data["access_key_id"], Secret: data["secret_access_key"], Token: data["session_token"]})
			var err error
			if c.kind == "iam_user" || c.kind == "assumed_role" {
				_, err = users.ListGroups(t.Context(), &iam.ListGroupsInput{})
			} else { // only the front knows these: they can say who they are
				_, err = sessions.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			}
			return err
		},
	}
	if c.kind != "iam_user" {
		target.ended = func(t *testing.T, l api.Lease, data map[string]string) {
			t.Helper()
			c.judge(t, l, server.Ends(data["access_key_id"]), target.login(t, data))
		}
	}
	switch c.kind {
	case "iam_user":
		target.form["policy_document"] = allowed
		target.users = func(t *testing.T) []string {
			t.Helper()
			return slices.DeleteFunc(front.Users(t), func(name string) bool { return !strings.HasPrefix(name, "v_"+role+"_") })
		}
	case "federation_token":
		target.form["policy_document"] = allowed
		front.Permit(t, name, "aws-federation", awsPolicy(t, "aws-federation"))
	case "assumed_role":
		assumed := front.Role(t, "app-"+role, allowed)
		target.form["role_arns"] = []string{assumed}
		if c.denied {
			target.form["end_sessions"] = true
			front.Permit(t, name, "aws-end-sessions", awsPolicy(t, "aws-end-sessions"))
			target.denied = func(*testing.T) (leases []string) {
				for _, policy := range server.RolePolicies(assumed) {
					if lease, ours := strings.CutPrefix(policy, "scaivault-"); ours {
						leases = append(leases, lease)
					}
				}
				return leases
			}
		}
	}
	return target
}

// judge compares what becomes of a session that was revoked with what its lease says: it is told dead when STS ends
// it, and not before. Until then it is taken, unless its role denies it everything.
func (c awsCredential) judge(t *testing.T, l api.Lease, ends time.Time, used error) {
	t.Helper()
	if goesOn := c.life == 0 && !c.denied; goesOn != (used == nil) {
		t.Errorf("what was revoked is accepted: %t (%v); it should be: %t", used == nil, used, goesOn)
	}
	if at := l.Revocation.EffectiveAt; at == nil || !at.Equal(ends) || l.RevokedAt != nil && l.RevokedAt.Before(ends) {
		t.Errorf("it is promised to be dead at %v, and told so at %v; STS ends it at %s", at, l.RevokedAt, ends)
	}
}

// awsPolicy is one of the guide, as it is written there.
func awsPolicy(t *testing.T, name string) string {
	t.Helper()
	guide, err := os.ReadFile("../../docs/engines/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(guide), "```json "+name+"\n")
	if !ok {
		t.Fatalf("the guide has no policy %s", name)
	}
	policy, _, _ := strings.Cut(rest, "```")
	return policy
}
