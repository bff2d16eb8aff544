package aws_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
)

// TestConformance runs the suite with every type of credential.
func TestConformance(t *testing.T) {
	t.Parallel()
	for kind, policies := range map[string][]string{
		"iam_user": nil, "assumed_role": {"aws-end-sessions"}, "federation_token": {"aws-federation"}, "session_token": nil,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, func(t *testing.T) *enginetest.Target { return newAccount(t, policies...).target(t, kind) })
		})
	}
}

// requests is how much longer than that of others the little patience of an engine is: what is one
// message elsewhere are ten requests here, to a server that answers them one by one.
const requests = 2

func (a *account) target(t *testing.T, kind string) *enginetest.Target {
	t.Helper()
	extra := map[string]any{}
	if kind == "assumed_role" {
		extra["end_sessions"] = true
	}
	target := &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			extra := map[string]any{}
			if o.Address != "" {
				extra["iam_endpoint"], extra["sts_endpoint"] = "http://"+o.Address, "http://"+o.Address
			}
			if o.OperationTimeout != 0 {
				patience := (requests * o.OperationTimeout).String()
				extra["operation_timeout"], extra["connect_timeout"] = patience, patience
			}
			options := a.options(extra)
			options.Node, options.Epoch = enginetest.Node, o.Epoch
			if o.Root != nil {
				options.Root = o.Root
			}
			return open(t, options)
		},
		Elsewhere: func(t *testing.T) engine.Engine { return open(t, a.options(map[string]any{"source_id": "elsewhere"})) },
		Address:   a.front.Addr,
		Role:      a.roleOf(t, kind, extra),
		Public:    []string{"access_key_id"},
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			s := session{a, kind, data}
			return s, a.try(ctx, data, kind)
		},
		Exists: func(t *testing.T, name string) bool {
			return slices.Contains(a.front.Users(t), name) || a.server.Session(name)
		},
		Plant: func(t *testing.T, name string) {
			admin := a.front.Admin()
			if _, err := admin.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_, _ = admin.DeleteUser(context.Background(), &iam.DeleteUserInput{UserName: &name}) // the server goes, too
			})
		},
		End: func(t *testing.T, name string) time.Time { return a.end(t, name) },
		Log: func(*testing.T) string { return a.server.Log() },
		Say: func(_ *testing.T, text string) { a.server.Say(text) },
	}
	if kind != "iam_user" {
		target.Exceptions, target.End = sessionExceptions(kind), nil
	}
	return target
}

// sessionExceptions are what no session of STS can keep: it ends by itself and not before, is nobody's
// account, and cannot be looked up or listed.
func sessionExceptions(kind string) map[string]string {
	const lives = "such a session cannot be ended before its time: Revoke says when that is"
	const nameless = "a session is no account: it cannot be looked up, listed or met by another"
	exceptions := map[string]string{"NameTaken": nameless, "Lookup": nameless, "LateExecution": nameless, "LostAnswer": nameless, "List": nameless,
		"Unreachable": nameless, "BlackHole": nameless, "Frozen": nameless}
	if kind != "assumed_role" {
		for _, name := range []string{"Issue", "RevokeTwice", "RevokeEndsSessions", "RevokeBeatsReconnecting", "Concurrency", "RotateRoot"} {
			exceptions[name] = lives
		}
	}
	if kind == "session_token" {
		exceptions["SecretsStayOutOfTheLog"] = "AWS is not told the name of such a session"
	}
	return exceptions
}

// session is a credential in use: every request stands for itself.
type session struct {
	account *account
	kind    string
	data    map[string]statement.Secret
}

func (s session) Works(ctx context.Context) bool { return s.account.try(ctx, s.data, s.kind) == nil }
func (s session) Close()                         {}

// end is when the user's own policy ends it.
func (a *account) end(t testing.TB, name string) time.Time {
	t.Helper()
	conditions := a.server.Policy(name, "scaivault-end")
	if len(conditions) != 1 || len(conditions[0]["DateGreaterThan"]["aws:CurrentTime"]) != 1 {
		t.Fatalf("the policy that ends %s: %v", name, conditions)
	}
	end, err := time.Parse(time.RFC3339, conditions[0]["DateGreaterThan"]["aws:CurrentTime"][0])
	if err != nil {
		t.Fatal(err)
	}
	return end
}
