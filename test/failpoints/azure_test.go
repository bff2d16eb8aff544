package failpoints_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/azuretest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrixAzure kills the server between the steps of an issuance, a revocation and a root rotation
// in Azure, where nothing is a transaction and the source makes passwords itself. Renewals are left out:
// there are none.
func TestCrashMatrixAzure(t *testing.T) {
	t.Parallel()
	renewals := []failpoint.Point{failpoint.N1, failpoint.N2, failpoint.N3}
	short := []failpoint.Point{failpoint.F3, failpoint.F4, failpoint.F5, failpoint.F6, failpoint.Disabled, failpoint.R2, failpoint.RootPlanned, failpoint.RootKept, failpoint.RootSent}
	for name, existing := range map[string]bool{"application": false, "password": true} {
		for _, s := range everywhere() {
			if slices.Contains(renewals, s.point) || !full() && (existing || !slices.Contains(short, s.point)) {
				continue
			}
			if s.point == failpoint.R4 { // tokens that were given out work for another second
				s.reach = revokingBehindTheAnswer
			}
			t.Run(name+"/"+string(s.point), func(t *testing.T) {
				t.Parallel()
				role := newRole()
				inAzure(t, role, existing).play(t, s, role, vaulttest.StartProgram(t, vaulttest.Failing(t)))
			})
		}
	}
}

// inAzure starts a server with a root that has the rights of the guide.
func inAzure(t *testing.T, role string, existing bool) target {
	t.Helper()
	source := azuretest.Start(t)
	root := source.NewRoot(t, azuretest.Rights{
		Permissions: []string{"Application.ReadWrite.OwnedBy", "GroupMember.ReadWrite.All"},
		Roles:       map[string]string{source.Scope(): "Role Based Access Control Administrator"}, OwnsItself: true,
	})
	source.NewGroup("readers")
	form := client.Document{
		"azure_roles": []map[string]string{{"role_name": "Reader", "scope": source.Scope() + "/resourceGroups/app"}}, "azure_groups": []string{"readers"},
	}
	objectID, clientID := source.NewApplication("somebody's", root.PrincipalID)
	source.Assign(t, source.Scope(), "Reader", source.PrincipalOf(clientID))
	if existing {
		form = client.Document{"application_object_id": objectID}
	}
	before := source.Left()
	t.Cleanup(func() {
		now := source.Left()
		if now.Recycled = before.Recycled; now != before {
			t.Errorf("left are %s, and there were %s", now, before)
		}
	})
	return target{
		engine: "azure",
		config: client.Document{
			"tenant_id": source.Tenant, "subscription_id": source.Subscription, "tls_ca_path": rootPath, "token_lifetime": "1s",
			"login_endpoint": source.URL(), "graph_endpoint": source.URL(), "resource_manager_endpoint": source.URL(),
		},
		form: form,
		root: map[string]string{"client_id": root.ClientID, "client_secret": root.ClientSecret, "certificate": source.CA},
		users: func(*testing.T) (names []string) {
			for _, name := range source.Names() {
				if name, _, _ = strings.Cut(name, " "); strings.HasPrefix(name, "v_"+role+"_") && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			return names
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			session, err := source.Login(context.Background(), data["client_id"], data["client_secret"])
			if err == nil {
				session.Close()
			}
			return err
		},
	}
}
