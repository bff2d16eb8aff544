package failpoints_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/gcptest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrixGCP kills the server at every point that is reached with Google Cloud. A credential is
// the key of an account of its own, with a binding: the longest way there is. Its end cannot be moved,
// so nothing is renewed.
func TestCrashMatrixGCP(t *testing.T) {
	t.Parallel()
	between := []failpoint.Point{failpoint.F3, failpoint.F4, failpoint.F5, failpoint.F6, failpoint.Disabled, failpoint.Emptied, failpoint.R2, failpoint.RootSent, failpoint.RootSet, failpoint.RootProved}
	renewals := []failpoint.Point{failpoint.N1, failpoint.N2, failpoint.N3}
	for _, s := range append(everywhere(), scenario{point: failpoint.Emptied, reach: revoking, found: closed, ends: true}) {
		if slices.Contains(renewals, s.point) || !full() && !slices.Contains(between, s.point) {
			continue
		}
		if s.point == failpoint.R4 {
			s.reach = revokingBehindTheAnswer
		}
		t.Run(string(s.point), func(t *testing.T) {
			t.Parallel()
			role := newRole()
			inGCP(t, role).play(t, s, role, vaulttest.StartProgram(t, vaulttest.Failing(t)))
		})
	}
}

// revokingBehindTheAnswer is revoking where the source is dead a moment later: the lease is closed, and the
// server dies, when the request has been answered.
func revokingBehindTheAnswer(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	node := w.first()
	node.Arm(t, arm)
	if l, err := node.Admin(t).RevokeLease(t.Context(), subject.LeaseID, patience); err != nil || l == nil || l.Revocation.EffectiveAt == nil {
		t.Fatalf("revoke: %+v, %v", l, err)
	}
	node.AwaitDeath(t)
	node.Arm(t)
}

// inGCP starts a server with the root of the guide.
func inGCP(t *testing.T, role string) target {
	t.Helper()
	const project, reader, may = "projects/" + gcptest.Project, "roles/app.reader", "app.items.get"
	source := gcptest.StartPlain(t)
	root := source.AddAccount("scaivault-root")
	guide, err := os.ReadFile("../../docs/engines/gcp.md")
	if err != nil {
		t.Fatal(err)
	}
	source.DefineRole("roles/scaivault", gcptest.RoleOf(string(guide))...)
	source.DefineRole(reader, may)
	source.AddResource(project)
	source.Grant(project, "roles/scaivault", "serviceAccount:"+root.Email)
	endpoints := map[string]string{}
	for _, name := range []string{"iam", "iamcredentials", "cloudresourcemanager", "oauth2"} {
		endpoints[name] = source.URL()
	}
	return target{
		engine: "gcp",
		config: client.Document{"project": gcptest.Project, "endpoints": endpoints, "iam_propagation": "1s"},
		form: client.Document{"credential_type": "service_account_key", "bindings": []map[string]any{
			{"resource": project, "roles": []string{reader}}}},
		root: map[string]string{"credentials": string(source.AddKey(root.Email))},
		users: func(t *testing.T) (names []string) {
			t.Helper()
			for _, a := range source.Accounts() {
				if strings.HasPrefix(a.Email, "v-"+role+"-") {
					names = append(names, a.Email[:strings.IndexByte(a.Email, '@')])
				}
			}
			for _, m := range source.Members()[project] {
				if strings.HasPrefix(m, "deleted:") {
					t.Errorf("a deleted account is left in the policy: %s", m)
				}
			}
			return names
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			h, err := source.LogIn(t.Context(), "", data["private_key_data"])
			if err != nil {
				return err
			}
			if ok, err := h.May(t.Context(), project, may); err != nil || !ok {
				return errors.Join(errors.New("the account may not read"), err)
			}
			return nil
		},
	}
}
