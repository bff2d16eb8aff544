package e2e_test

import (
	"os"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/sshtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// A one-time password lets in once, the account and to the host that it was made for, and nobody while
// the server cannot be asked.
func TestSSHPassword(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	v := newVault(t)
	v.sshEngine(t, "otp", map[string]any{"mode": "otp"},
		client.Document{"name": "web", "allowed_users": []string{sshtest.User, sshtest.Other}, "cidr_list": []string{"127.0.0.0/8"}})
	h := sshtest.NewHost(t, sshtest.WithPAM(
		"auth requisite pam_exec.so expose_authtok quiet log=/etc/ssh/verify.log "+vaulttest.Program(t)+
			" ssh-host verify-otp --url "+v.URL+" --engine otp --token-file /etc/ssh/host-token --timeout 60s",
		"auth required pam_permit.so", "account required pam_permit.so", "session required pam_permit.so"))
	if err := os.WriteFile(h.Path("host-token"), []byte(v.hostToken(t, "otp")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Boot(t)

	password := func(address, user string, from ...string) (string, *client.Lease) {
		t.Helper()
		lease, err := v.admin.Generate(t.Context(), "otp", "web", client.GenerateOptions{Params: map[string]any{"ip": address, "username": user, "client_ip": strings.Join(from, "")}})
		if err != nil {
			t.Fatalf("make a password: %v", err)
		}
		v.remember(lease.Data()["otp"])
		return lease.Data()["otp"], lease
	}
	verified := func() string {
		t.Helper()
		log, err := os.ReadFile(h.Path("verify.log"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(log)
	}
	mustOpen := func(what, otp, user string) {
		t.Helper()
		if out, err := h.LoginPassword(t, otp, user, "id -un"); err != nil || out != user+"\n" {
			t.Errorf("%s: %q, %v; the helper says %s; sshd says %s", what, out, err, verified(), h.Log(t))
		}
	}
	mustNotOpen := func(what, otp, user string) {
		t.Helper()
		if out, err := h.LoginPassword(t, otp, user, "id -un"); err == nil || strings.Contains(out, "scaivault") {
			t.Errorf("%s: %q, %v; the helper says %s", what, out, err, verified())
		}
	}

	once, lease := password("127.0.0.1", sshtest.User)
	mustNotOpen("for another account", once, sshtest.Other)
	mustOpen("the first time", once, sshtest.User)
	mustNotOpen("the second time", once, sshtest.User)
	if l := v.lease(t, lease.ID); l.Status != api.LeaseRevoked || l.Revocation.Reason != api.ReasonUsed {
		t.Errorf("the lease of a used password is %+v, %+v", l, l.Revocation)
	}
	fromHere, _ := password("127.0.0.1", sshtest.User, "127.0.0.1")
	mustOpen("from the address that it is for", fromHere, sshtest.User)
	fromThere, _ := password("127.0.0.1", sshtest.User, "127.0.0.9")
	mustNotOpen("from another address", fromThere, sshtest.User)
	elsewhere, _ := password("127.0.0.2", sshtest.User)
	mustNotOpen("for another host", elsewhere, sshtest.User)
	revoked, lease := password("127.0.0.1", sshtest.User)
	if _, err := v.admin.RevokeLease(t.Context(), lease.ID, 0); err != nil {
		t.Fatal(err)
	}
	mustNotOpen("revoked", revoked, sshtest.User)
	mustNotOpen("wrong", "v_web_0000000000000000-AAAAAAAAAAAAAAAAAAAAAAAAAA", sshtest.User)
	mustNotOpen("longer than a password can be", strings.Repeat("x", 600), sshtest.User)

	late, _ := password("127.0.0.1", sshtest.User)
	v.Stop(t)
	mustNotOpen("while the server is down", late, sshtest.User)
	v.again(t)
	mustOpen("when it is back", late, sshtest.User)

	for _, otp := range []string{once, fromHere, fromThere, elsewhere, revoked, late} {
		if strings.Contains(verified()+h.Log(t), otp) {
			t.Error("a password is in a log of the host")
		}
	}
}

// hostToken is a token that is good for asking about passwords of an engine, and for nothing else.
func (v *vault) hostToken(t *testing.T, engine string) string {
	t.Helper()
	account, err := v.admin.CreateServiceAccount(t.Context(), api.ServiceAccountRequest{Name: "hosts", Scopes: []string{"dynamic:verify"}})
	if err != nil {
		t.Fatalf("make the hosts' account: %v", err)
	}
	v.allow(t, "hosts", "service_account", account.IdentityID, api.PolicyRule{PathPattern: "dynamic/" + engine, Permissions: []api.Permission{"dynamic:verify"}})
	hosts := v.Client(t, client.Config{ClientID: account.ClientID, ClientSecret: account.ClientSecret})
	token, err := hosts.CreateToken(t.Context(), api.TokenRequest{Name: "web1", Scopes: []string{"dynamic:verify"}})
	if err != nil {
		t.Fatalf("make the host's token: %v", err)
	}
	v.remember(account.ClientSecret, token.Token)
	return token.Token
}
