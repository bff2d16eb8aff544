package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/sshtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// sshEngine makes an engine whose CA key the server makes, where it is one.
func (v *vault) sshEngine(t *testing.T, name string, config map[string]any, roles ...client.Document) {
	t.Helper()
	if config["mode"] != "otp" {
		config["root_credentials_path"] = rootPath(name)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: name, Type: "ssh", Config: raw}); err != nil {
		t.Fatalf("make the engine %s: %v", name, err)
	}
	for _, role := range roles {
		v.role(t, name, role)
	}
}

// creds asks for a credential as the administrator, with an engine's own fields.
func (v *vault) creds(t *testing.T, path, body string) api.Credential {
	t.Helper()
	status, answer := v.raw(t, http.MethodPost, "/v1/dynamic/engines/"+path, body)
	var c api.Credential
	if err := json.Unmarshal([]byte(answer), &c); err != nil || status != http.StatusCreated {
		t.Fatalf("ask for a credential: %d, %s", status, answer)
	}
	return c
}

// publicKey is a caller's, in JSON.
func publicKey(t *testing.T) string {
	t.Helper()
	line, err := os.ReadFile(sshtest.NewKey(t) + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return string(quoted(strings.TrimSpace(string(line))))
}

// published reads what anybody may read, without a token.
func (v *vault) published(t *testing.T, path string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	response := v.send(t, http.MethodGet, "/v1/dynamic/engines/"+path, "", append(headers, "Authorization:")...)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

// revokedBy asks OpenSSH whether the server's list holds a certificate.
func (v *vault) revokedBy(t *testing.T, engine, certificate string) bool {
	t.Helper()
	response, list := v.published(t, engine+"/ssh/krl")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("read the list: %s, %s", response.Status, list)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"krl": list, "cert.pub": []byte(certificate + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := sshtest.Command(t, "ssh-keygen", "-Q", "-f", filepath.Join(dir, "krl"), filepath.Join(dir, "cert.pub")).CombinedOutput()
	revoked := strings.Contains(string(out), "REVOKED")
	if revoked != (err != nil) || !revoked && !strings.Contains(string(out), ": ok") {
		t.Fatalf("look the certificate up: %v, %s", err, out)
	}
	return revoked
}

var deployRole = client.Document{"name": "deploy", "allowed_users": []string{"deploy"}, "extensions": map[string]string{"permit-pty": ""}}

// TestSSHCertificates is the life of certificates: a revoked one is in the list at once, whatever happens
// to the server, until its end, and its lease is revoked when every host must have fetched that.
func TestSSHCertificates(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.sshEngine(t, "hosts", map[string]any{"krl_max_age": "2s"}, deployRole)
	secret, err := v.admin.ReadSecret(t.Context(), rootPath("hosts"), 0)
	if err != nil || secret.Version != 1 {
		t.Fatalf("the CA's key: version %d, %v", secret.Version, err)
	}
	var key string
	if err := json.Unmarshal(secret.Data["private_key"], &key); err != nil {
		t.Fatal(err)
	}
	v.remember(strings.Split(key, "\n")[3])

	asked := `{"public_key": ` + publicKey(t) + `, "ttl": "10m"}`
	c, kept := v.creds(t, "hosts/creds/deploy", asked), v.creds(t, "hosts/creds/deploy", asked)
	if c.Renewable || c.Data["serial_number"] == kept.Data["serial_number"] {
		t.Errorf("%+v", c)
	}
	if v.revokedBy(t, "hosts", c.Data["signed_key"]) {
		t.Fatal("a new certificate is revoked")
	}
	empty, _ := v.published(t, "hosts/ssh/krl")
	if again, body := v.published(t, "hosts/ssh/krl", "If-None-Match: "+empty.Header.Get("ETag")); again.StatusCode != http.StatusNotModified || len(body) > 0 {
		t.Errorf("the same list is answered with %s, %d bytes", again.Status, len(body))
	}

	begun := time.Now()
	pending, err := v.admin.RevokeLease(t.Context(), c.LeaseID, time.Minute)
	if err != nil || pending == nil || pending.Revocation.EffectiveAt == nil || pending.Status != api.LeaseRevoking {
		t.Fatalf("revoke: %+v, %v", pending, err)
	}
	if effective := pending.Revocation.EffectiveAt.Sub(begun); effective < 2*time.Second || effective > time.Minute {
		t.Errorf("it is dead after %s", effective)
	}
	eventually(t, time.Minute, "the list holds the certificate", func() bool { return v.revokedBy(t, "hosts", c.Data["signed_key"]) })
	if again, _ := v.published(t, "hosts/ssh/krl", "If-None-Match: "+empty.Header.Get("ETag")); again.StatusCode != http.StatusOK {
		t.Errorf("another list is answered with %s", again.Status)
	}
	v.Kill(t)
	v.again(t)
	eventually(t, time.Minute, "the lease is revoked", func() bool { return v.lease(t, c.LeaseID).Status == api.LeaseRevoked })
	if l := v.lease(t, c.LeaseID); !l.Revocation.EffectiveAt.Equal(*pending.Revocation.EffectiveAt) || l.RevokedAt.Before(*l.Revocation.EffectiveAt) {
		t.Errorf("promised was %s: %+v", pending.Revocation.EffectiveAt, l.Revocation)
	}
	if !v.revokedBy(t, "hosts", c.Data["signed_key"]) || v.revokedBy(t, "hosts", kept.Data["signed_key"]) {
		t.Error("after the restart the list is another")
	}
	status, answer := v.raw(t, http.MethodPost, "/v1/dynamic/leases/"+kept.LeaseID+"/renew", `{}`)
	if status != http.StatusConflict || !strings.Contains(answer, "not_renewable") {
		t.Errorf("renew: %d, %s", status, answer)
	}

	_, before := v.published(t, "hosts/ssh/public-key")
	if _, err := v.admin.RotateRoot(t.Context(), "hosts"); err != nil {
		t.Fatalf("rotate the CA: %v", err)
	}
	if _, after := v.published(t, "hosts/ssh/public-key"); bytes.Count(after, []byte("\n")) != 2 || !bytes.HasSuffix(after, before) {
		t.Errorf("published are %s", after)
	}
	signer := func(c api.Credential) string {
		file := filepath.Join(t.TempDir(), "cert.pub")
		if err := os.WriteFile(file, []byte(c.Data["signed_key"]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(sshtest.Keygen(t, "-L", "-f", file), "Signing CA: ")
		ca, _, _ := strings.Cut(rest, "\n")
		return ca
	}
	eventually(t, time.Minute, "the new key signs", func() bool { return signer(v.creds(t, "hosts/creds/deploy", asked)) != signer(kept) })
	if pending, err := v.admin.RevokeLease(t.Context(), kept.LeaseID, 0); err != nil || pending == nil {
		t.Fatalf("revoke: %+v, %v", pending, err)
	}
	eventually(t, time.Minute, "the list holds the certificate of the former key", func() bool { return v.revokedBy(t, "hosts", kept.Data["signed_key"]) })

	v.sshEngine(t, "passwords", map[string]any{"mode": "otp"})
	for _, path := range []string{"nowhere/ssh/krl", "nowhere/ssh/public-key", "passwords/ssh/krl", "passwords/ssh/public-key"} {
		if response, body := v.published(t, path); response.StatusCode != http.StatusNotFound || !bytes.Contains(body, []byte("engine_not_found")) {
			t.Errorf("%s: %s, %s", path, response.Status, body)
		}
	}
	if h, err := v.admin.EngineHealth(t.Context(), "hosts"); err != nil || h.Status != "healthy" || h.Details["listed_as_revoked"] != "2" || h.Details["trusted_keys"] != "2" {
		t.Errorf("health: %+v, %v", h, err)
	}
	if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chain does not verify: %+v, %v", report, err)
	}
}

// A CA is made only by who may write its secret, for an engine that may read it, and in place of nothing.
func TestSSHRoot(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	engine := func(path string) api.EngineRequest {
		return api.EngineRequest{Name: "hosts", Type: "ssh", Config: json.RawMessage(`{"root_credentials_path": "` + path + `"}`)}
	}
	_, err := v.admin.CreateEngine(t.Context(), engine("elsewhere/ca"))
	mustFail(t, "a CA that the engine may not read", err, client.InvalidConfig)
	account, err := v.admin.CreateServiceAccount(t.Context(), api.ServiceAccountRequest{Name: "maker", Scopes: []string{"dynamic:manage"}})
	if err != nil {
		t.Fatal(err)
	}
	v.allow(t, "maker", "service_account", account.IdentityID, api.PolicyRule{PathPattern: "dynamic/hosts", Permissions: []api.Permission{"dynamic:manage"}})
	maker := v.Client(t, client.Config{ClientID: account.ClientID, ClientSecret: account.ClientSecret})
	_, err = maker.CreateEngine(t.Context(), engine("infra/hosts/ca"))
	mustFail(t, "a CA in a place where one may not write", err, client.AccessDenied)
	for _, path := range []string{"infra/hosts/ca", "elsewhere/ca"} {
		_, err := v.admin.ReadSecret(t.Context(), path, 0)
		mustFail(t, "a key of what was refused", err, "secret_not_found")
	}

	if _, err := v.admin.WriteSecret(t.Context(), "infra/hosts/ca", api.SecretWrite{Data: map[string]json.RawMessage{"private_key": quoted("none")}}); err != nil {
		t.Fatal(err)
	}
	_, err = v.admin.CreateEngine(t.Context(), engine("infra/hosts/ca"))
	mustFail(t, "a key that is none", err, client.InvalidConfig)
	key := sshtest.NewKey(t)
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.WriteSecret(t.Context(), "infra/hosts/ca", api.SecretWrite{Data: map[string]json.RawMessage{"private_key": quoted(string(private))}}); err != nil {
		t.Fatal(err)
	}
	_, err = maker.CreateEngine(t.Context(), engine("infra/hosts/ca"))
	mustFail(t, "a CA of somebody else's key", err, client.AccessDenied)
	if _, err := v.admin.CreateEngine(t.Context(), engine("infra/hosts/ca")); err != nil {
		t.Fatalf("an engine of one's own key: %v", err)
	}
	if _, published := v.published(t, "hosts/ssh/public-key"); string(published) != strings.TrimSpace(string(public))+" hosts\n" {
		t.Errorf("published is %s, not %s", published, public)
	}
}

// Many revoked certificates: the list is read by OpenSSH, fetched once and then only asked about.
func TestSSHManyRevoked(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.sshEngine(t, "hosts", map[string]any{"krl_max_age": "1m"}, deployRole)
	n := size(300, 10_000)
	asked := `{"public_key": ` + publicKey(t) + `, "ttl": "2h"}`
	begun := time.Now()
	serials := make([]string, n)
	each(t, 8, n, func(i int) error {
		status, answer := v.raw(t, http.MethodPost, "/v1/dynamic/engines/hosts/creds/deploy", asked)
		var c api.Credential
		if err := json.Unmarshal([]byte(answer), &c); err != nil || status != http.StatusCreated {
			return fmt.Errorf("%d, %s", status, answer)
		}
		serials[i] = c.Data["serial_number"]
		return nil
	})
	t.Logf("%d certificates in %s", n, time.Since(begun).Round(time.Millisecond))
	begun = time.Now()
	result, err := v.admin.RevokePrefix(t.Context(), "hosts", time.Second)
	if err != nil || result.Matched != int64(n) {
		t.Fatalf("revoke all: %+v, %v", result, err)
	}
	var printed string
	var response *http.Response
	var list []byte
	eventually(t, 2*time.Minute, "the list holds all", func() bool {
		response, list = v.published(t, "hosts/ssh/krl")
		return len(list) >= 8*n
	})
	t.Logf("all are listed after %s", time.Since(begun).Round(time.Millisecond))
	file := filepath.Join(t.TempDir(), "krl")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	printed = sshtest.Keygen(t, "-Q", "-l", "-f", file)
	t.Logf("a list of %d bytes is read in %s", len(list), time.Since(begun).Round(time.Millisecond))
	for _, serial := range serials {
		if !strings.Contains(printed, "serial: "+serial+"\n") {
			t.Fatalf("serial %s is not listed", serial)
		}
	}
	for range 3 {
		time.Sleep(1100 * time.Millisecond) // the node makes it anew
		begun = time.Now()
		again, body := v.published(t, "hosts/ssh/krl", "If-None-Match: "+response.Header.Get("ETag"))
		t.Logf("asked again it is made and compared in %s", time.Since(begun).Round(time.Millisecond))
		if again.StatusCode != http.StatusNotModified || len(body) > 0 {
			t.Errorf("asked again: %s, %d bytes", again.Status, len(body))
		}
	}
}

// verifier is a host's account, which may have passwords of one engine checked and nothing else.
func (v *vault) verifier(t *testing.T, engine string) (token string) {
	t.Helper()
	account, err := v.admin.CreateServiceAccount(t.Context(), api.ServiceAccountRequest{Name: "host-" + engine, Scopes: []string{"dynamic:verify"}})
	if err != nil {
		t.Fatal(err)
	}
	v.allow(t, "host-"+engine, "service_account", account.IdentityID, api.PolicyRule{PathPattern: "dynamic/" + engine, Permissions: []api.Permission{"dynamic:verify"}})
	status, answer := v.raw(t, http.MethodPost, "/v1/auth/token", "grant_type=client_credentials&client_id="+account.ClientID+"&client_secret="+account.ClientSecret,
		"Authorization:", "Content-Type: application/x-www-form-urlencoded")
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(answer), &granted); err != nil || status != http.StatusOK {
		t.Fatalf("have a token: %d, %s", status, answer)
	}
	return granted.AccessToken
}

// verify presents a password and tells whether it was right.
func (v *vault) verify(t *testing.T, token, engine, password, username, address string) (status int, answer string) {
	t.Helper()
	body, err := json.Marshal(api.SSHVerifyRequest{OTP: password, Username: username, IP: address})
	if err != nil {
		t.Fatal(err)
	}
	return v.raw(t, http.MethodPost, "/v1/dynamic/engines/"+engine+"/ssh/verify", string(body), "Authorization: Bearer "+token)
}

var passwordRole = client.Document{"name": "deploy", "allowed_users": []string{"deploy", "web"}, "default_user": "deploy", "cidr_list": []string{"10.0.0.0/8"}}

// TestSSHPasswords: a password is right once, for its account and its host, and says nothing otherwise.
func TestSSHPasswords(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.sshEngine(t, "passwords", map[string]any{"mode": "otp"}, passwordRole)
	v.sshEngine(t, "others", map[string]any{"mode": "otp"}, passwordRole)
	host := v.verifier(t, "passwords")
	password := func() (lease, text string) {
		c := v.creds(t, "passwords/creds/deploy", `{"ip": "10.1.2.3", "ttl": "10m"}`)
		v.remember(c.Data["otp"][strings.Index(c.Data["otp"], "-")+1:])
		return c.LeaseID, c.Data["otp"]
	}
	var refusals []string
	refused := func(what string, status int, answer string) {
		t.Helper()
		var body api.ErrorBody
		if err := json.Unmarshal([]byte(answer), &body); err != nil || status != http.StatusForbidden || body.Error.Code != "forbidden" {
			t.Errorf("%s: %d, %s", what, status, answer)
		}
		refusals = append(refusals, body.Error.Message)
	}
	try := func(what, text, username, address string) {
		t.Helper()
		status, answer := v.verify(t, host, "passwords", text, username, address)
		refused(what, status, answer)
	}
	lease, text := password()
	try("another account", text, "web", "10.1.2.3")
	try("another host", text, "deploy", "10.1.2.4")
	try("another secret", text[:len(text)-1]+"!", "deploy", "10.1.2.3")
	try("a name alone", text[:strings.Index(text, "-")], "deploy", "10.1.2.3")
	try("nonsense", "nonsense", "deploy", "10.1.2.3")
	status, answer := v.verify(t, v.verifier(t, "others"), "others", text, "deploy", "10.1.2.3")
	refused("at another engine", status, answer)
	status, answer = v.verify(t, host, "passwords", text, "deploy", "10.1.2.3")
	var right api.SSHVerification
	if err := json.Unmarshal([]byte(answer), &right); err != nil || status != http.StatusOK ||
		right != (api.SSHVerification{Valid: true, Username: "deploy", IP: "10.1.2.3", Role: "deploy", LeaseID: lease}) {
		t.Fatalf("the password: %d, %s", status, answer)
	}
	try("used", text, "deploy", "10.1.2.3")
	if l := v.lease(t, lease); l.Status != api.LeaseRevoked || l.Revocation.Reason != api.ReasonUsed || l.Revocation.RequestedBy != "sa:host-passwords" {
		t.Errorf("its lease says %+v", l)
	}

	lease, text = password()
	if pending, err := v.admin.RevokeLease(t.Context(), lease, 0); err != nil || pending != nil {
		t.Errorf("revoke: %+v, %v", pending, err)
	}
	try("revoked", text, "deploy", "10.1.2.3")
	_, text = password()
	if result, err := v.admin.RevokePrefix(t.Context(), "passwords", 0); err != nil || result.Pending != 0 {
		t.Errorf("revoke all: %+v, %v", result, err)
	}
	try("revoked with the others", text, "deploy", "10.1.2.3")
	short := v.creds(t, "passwords/creds/deploy", `{"ip": "10.1.2.3", "ttl": "1s"}`)
	time.Sleep(time.Until(short.ExpiresAt) + 50*time.Millisecond)
	try("past its end", short.Data["otp"], "deploy", "10.1.2.3")
	for _, said := range refusals {
		if said != refusals[0] {
			t.Errorf("a refusal says %q, another %q", refusals[0], said)
		}
	}

	_, text = password()
	status, answer = v.raw(t, http.MethodPost, "/v1/dynamic/engines/passwords/creds/deploy", `{"ip": "10.1.2.3"}`, "Authorization: Bearer "+host)
	if status != http.StatusForbidden {
		t.Errorf("a host makes itself a password: %d, %s", status, answer)
	}
	if status, answer = v.verify(t, host, "others", text, "deploy", "10.1.2.3"); status != http.StatusForbidden || !strings.Contains(answer, "access_denied") {
		t.Errorf("a host of another engine: %d, %s", status, answer)
	}
	for _, bad := range []api.SSHVerifyRequest{{OTP: "", Username: "deploy", IP: "10.1.2.3"}, {OTP: text, IP: "10.1.2.3"}, {OTP: text, Username: "deploy", IP: "web"},
		{OTP: strings.Repeat("x", 300), Username: "deploy", IP: "10.1.2.3"}} {
		if status, answer := v.verify(t, host, "passwords", bad.OTP, bad.Username, bad.IP); status != http.StatusBadRequest {
			t.Errorf("%v: %d, %s", bad, status, answer)
		}
	}
	tried := 0
	for entry, err := range v.admin.AuditLogs(t.Context(), client.AuditFilter{Action: "dynamic_verify"}) {
		if err != nil {
			t.Fatal(err)
		}
		if tried++; entry.IdentityID == "" || entry.SecretPath == "" {
			t.Errorf("an entry says %+v", entry)
		}
	}
	if want := len(refusals) + 1 + 1 + 4; tried != want {
		t.Errorf("%d tries are in the audit trail, not %d", tried, want)
	}
}

// TestSSHPasswordOnce: of a hundred who present a password at the same time, on three nodes, one is in.
func TestSSHPasswordOnce(t *testing.T) {
	t.Parallel()
	store := pgtest.Shared(t, 17)
	nodes := vaulttest.StartNodes(t, vaulttest.Program(t), 3, store.SuperURL(store.CreateDB(t)))
	vaults := make([]*vault, len(nodes))
	for i, node := range nodes {
		vaults[i] = &vault{Server: node, admin: node.Admin(t)}
	}
	v := vaults[0]
	v.sshEngine(t, "passwords", map[string]any{"mode": "otp"}, passwordRole)
	host := v.verifier(t, "passwords")
	for range 3 {
		text := v.creds(t, "passwords/creds/deploy", `{"ip": "10.1.2.3"}`).Data["otp"]
		var right, wrong atomic.Int64
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				switch status, answer := vaults[i%3].verify(t, host, "passwords", text, "deploy", "10.1.2.3"); status {
				case http.StatusOK:
					right.Add(1)
				case http.StatusForbidden:
					wrong.Add(1)
				default:
					t.Errorf("%d, %s", status, answer)
				}
			})
		}
		wg.Wait()
		if right.Load() != 1 || wrong.Load() != 99 {
			t.Errorf("%d are in, %d are not", right.Load(), wrong.Load())
		}
	}
}

// TestSSHListOfEveryNode: what is revoked on one node is in the lists of all.
func TestSSHListOfEveryNode(t *testing.T) {
	t.Parallel()
	store := pgtest.Shared(t, 17)
	nodes := vaulttest.StartNodes(t, vaulttest.Program(t), 2, store.SuperURL(store.CreateDB(t)))
	one, two := &vault{Server: nodes[0], admin: nodes[0].Admin(t)}, &vault{Server: nodes[1], admin: nodes[1].Admin(t)}
	one.allow(t, "engines", "system", "system:dynamic-engines", api.PolicyRule{PathPattern: "infra/**", Permissions: []api.Permission{"read", "rotate"}})
	one.sshEngine(t, "hosts", map[string]any{}, deployRole)
	c := one.creds(t, "hosts/creds/deploy", `{"public_key": `+publicKey(t)+`}`)
	if pending, err := one.admin.RevokeLease(t.Context(), c.LeaseID, 0); err != nil || pending == nil {
		t.Fatalf("revoke: %+v, %v", pending, err)
	}
	eventually(t, time.Minute, "both lists are the same and hold the certificate", func() bool {
		a, first := one.published(t, "hosts/ssh/krl")
		b, second := two.published(t, "hosts/ssh/krl")
		return bytes.Equal(first, second) && a.Header.Get("ETag") == b.Header.Get("ETag") && two.revokedBy(t, "hosts", c.Data["signed_key"])
	})
	if _, err := two.admin.RotateRoot(t.Context(), "hosts"); err != nil {
		t.Fatalf("rotate the CA: %v", err)
	}
	eventually(t, time.Minute, "both publish the new key", func() bool {
		_, first := one.published(t, "hosts/ssh/public-key")
		_, second := two.published(t, "hosts/ssh/public-key")
		return bytes.Equal(first, second) && bytes.Count(first, []byte("\n")) == 2
	})
}
