package e2e_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/azuretest"
)

// TestAzure is the life of a credential in Azure: its secret is dead at once, and until when a token may live
// is told; it is not renewed; and what Azure made on its own, the root's next password, works on.
func TestAzure(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	source := azuretest.Start(t)
	root := source.NewRoot(t, azuretest.Rights{
		Permissions: []string{"Application.ReadWrite.OwnedBy"}, OwnsItself: true,
		Roles: map[string]string{source.Scope(): "Role Based Access Control Administrator"},
	})
	before := source.Left()
	v.azureEngine(t, source, root)
	app := v.account(t, "app", "dynamic/cloud/reader")
	issue := func() api.Credential {
		t.Helper()
		c, err := app.GenerateCredential(t.Context(), "cloud", "reader", api.CredsRequest{})
		if err != nil {
			t.Fatalf("have a credential: %v", err)
		}
		v.remember(c.Data["client_secret"])
		if c.Renewable || c.Data["tenant_id"] != source.Tenant || len(c.Data) != 3 {
			t.Errorf("the credential is renewable: %t, and has %d fields", c.Renewable, len(c.Data))
		}
		return c
	}
	works := func(c api.Credential) bool {
		t.Helper()
		session, err := source.Login(t.Context(), c.Data["client_id"], c.Data["client_secret"])
		if err != nil {
			return false
		}
		defer session.Close()
		return session.Works(t.Context())
	}
	c, kept := issue(), issue()
	if !works(c) {
		t.Error("the credential cannot do what its role says")
	}
	_, err := app.RenewLease(t.Context(), c.LeaseID, api.RenewRequest{})
	mustFail(t, "renew", err, "not_renewable")
	if _, err := v.admin.RotateRoot(t.Context(), "cloud"); err != nil {
		t.Errorf("rotate the root: %v", err)
	}
	pending, err := v.admin.RevokeLease(t.Context(), c.LeaseID, time.Minute)
	if err != nil || pending == nil || pending.Revocation.EffectiveAt == nil || pending.Status != api.LeaseRevoking {
		t.Fatalf("revoke: %+v, %v", pending, err)
	}
	if in := time.Until(*pending.Revocation.EffectiveAt); in < 80*time.Minute || in > 91*time.Minute {
		t.Errorf("it is dead in %s", in)
	}
	if works(c) {
		t.Error("the client secret works after the revocation")
	}
	if !works(kept) {
		t.Error("another credential does not work after it")
	}
	if _, err := v.admin.RevokeLease(t.Context(), kept.LeaseID, time.Minute); err != nil {
		t.Errorf("revoke: %v", err)
	}
	now := source.Left()
	if now.Recycled = before.Recycled; now != before {
		t.Errorf("left are %s, and there were %s", now, before)
	}
	if h, err := v.admin.EngineHealth(t.Context(), "cloud"); err != nil || h.Status != "healthy" || len(h.Warnings)+len(h.MissingGrants) > 0 {
		t.Errorf("health: %+v, %v", h, err)
	}
	_, err = v.admin.CreateRole(t.Context(), "cloud", client.Document{"name": "own", "application_object_id": root.ObjectID})
	mustFail(t, "a role of the engine's own application", err, "invalid_config")
	_, err = v.admin.CreateRole(t.Context(), "cloud", client.Document{"name": "bad", "azure_roles": []map[string]string{{"role_name": "Reeder"}}})
	mustFail(t, "a role that Azure has not", err, "invalid_config")
}

func (v *vault) azureEngine(t *testing.T, source *azuretest.Server, root azuretest.Root) {
	t.Helper()
	v.remember(root.ClientSecret)
	for path, fields := range map[string]map[string]json.RawMessage{
		rootPath("cloud"): {"client_id": quoted(root.ClientID), "client_secret": quoted(root.ClientSecret)},
		"infra/cloud/ca":  {"certificate": quoted(source.CA)},
	} {
		if _, err := v.admin.WriteSecret(t.Context(), path, api.SecretWrite{Data: fields}); err != nil {
			t.Fatalf("write %s: %v", path, err)
		}
	}
	v.allow(t, "cloud", "system", "dynamic:cloud", api.PolicyRule{PathPattern: "infra/cloud/*", Permissions: []api.Permission{"read", "rotate"}})
	config, err := json.Marshal(map[string]string{
		"tenant_id": source.Tenant, "subscription_id": source.Subscription, "root_credentials_path": rootPath("cloud"), "tls_ca_path": "infra/cloud/ca",
		"login_endpoint": source.URL(), "graph_endpoint": source.URL(), "resource_manager_endpoint": source.URL(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "cloud", Type: "azure", Config: config}); err != nil {
		t.Fatalf("make the engine: %v", err)
	}
	v.role(t, "cloud", client.Document{"name": "reader", "azure_roles": []map[string]string{{"role_name": "Reader"}}})
}
