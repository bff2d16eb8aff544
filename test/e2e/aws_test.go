package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/awstest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

const listGroups = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:ListGroups", "Resource": "*"}]}`

// TestAWS is the life of credentials in AWS. A key that was deleted, and a session, are not said to be
// dead before they are.
func TestAWS(t *testing.T) {
	t.Parallel()
	v, front := newVault(t), awstest.Start(t).Front(t)
	role := v.awsEngine(t, front)
	v.role(t, "cloud", client.Document{"name": "reader", "credential_type": "iam_user", "policy_document": listGroups})
	v.role(t, "cloud", client.Document{"name": "deployer", "credential_type": "assumed_role", "role_arns": []string{role}})

	user := v.generate(t, "reader", api.CredsRequest{})
	mustWork(t, front, user)
	longer := api.Duration(2 * time.Hour)
	if _, err := v.admin.RenewLease(t.Context(), user.LeaseID, api.RenewRequest{Increment: &longer}); err != nil {
		t.Errorf("renew: %v", err)
	}
	v.endsLater(t, user.LeaseID, time.Now().Add(5*time.Second))
	mustNotWork(t, front, user)
	eventually(t, time.Minute, "the lease is revoked", func() bool { return v.lease(t, user.LeaseID).Status == api.LeaseRevoked })

	session := v.generate(t, "deployer", api.CredsRequest{})
	mustWork(t, front, session)
	if l := v.lease(t, session.LeaseID); !strings.HasSuffix(l.Username, session.LeaseID) || session.Renewable {
		t.Errorf("the session is %s, renewable: %t", l.Username, session.Renewable)
	}
	v.endsLater(t, session.LeaseID, session.ExpiresAt)

	if _, err := v.admin.RotateRoot(t.Context(), "cloud"); err != nil {
		t.Errorf("rotate the root: %v", err)
	}
	kept := v.generate(t, "reader", api.CredsRequest{})
	second := api.Duration(time.Second)
	short := v.generate(t, "reader", api.CredsRequest{TTL: &second})
	name := v.lease(t, short.LeaseID).Username
	v.Kill(t)
	time.Sleep(time.Until(short.ExpiresAt) + 2*time.Second) // AWS compares whole seconds
	mustNotWork(t, front, short)                            // by its own policy
	if !slices.Contains(front.Users(t), name) {
		t.Errorf("the user %s is gone: nobody was there to remove it", name)
	}
	v.again(t)
	mustWork(t, front, kept)
	eventually(t, time.Minute, "the user of who expired meanwhile is gone", func() bool { return !slices.Contains(front.Users(t), name) })
	eventually(t, time.Minute, "its lease is revoked", func() bool { return v.lease(t, short.LeaseID).Status == api.LeaseRevoked })
	v.endsLater(t, kept.LeaseID, time.Now().Add(5*time.Second))
	mustNotWork(t, front, kept)
	if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chain does not verify: %+v, %v", report, err)
	}
	if h, err := v.admin.EngineHealth(t.Context(), "cloud"); err != nil || h.Status != "healthy" || len(h.Warnings)+len(h.MissingGrants) > 0 {
		t.Errorf("health: %+v, %v", h, err)
	}
}

// What AWS cannot do is refused when the role is saved.
func TestAWSRefuses(t *testing.T) {
	t.Parallel()
	v, front := newVault(t), awstest.Start(t).Front(t)
	role := v.awsEngine(t, front)
	deployer := client.Document{"name": "deployer", "credential_type": "assumed_role", "role_arns": []string{role}}
	with := func(fields client.Document) client.Document {
		all := client.Document{}
		for _, d := range []client.Document{deployer, fields} {
			for k, value := range d {
				all[k] = value
			}
		}
		return all
	}
	for code, d := range map[client.Code]client.Document{
		"invalid_duration": with(client.Document{"default_ttl": "10m"}),
		"invalid_config":   with(client.Document{"role_arns": []string{role + "-none"}}),
		"invalid_role":     with(client.Document{"renewable": true}),
	} {
		_, err := v.admin.CreateRole(t.Context(), "cloud", d)
		mustFail(t, string(code), err, code)
	}
}

// TestAWSCommands: run and credential-process give what the AWS CLI and the SDKs read.
func TestAWSCommands(t *testing.T) {
	t.Parallel()
	v, front := newVault(t), awstest.Start(t).Front(t)
	v.awsEngine(t, front)
	v.role(t, "cloud", client.Document{"name": "reader", "credential_type": "iam_user", "policy_document": listGroups})
	scaivault := func(arguments ...string) string {
		cmd := exec.CommandContext(t.Context(), vaulttest.Program(t), arguments...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "SCAIVAULT_URL=" + v.URL, "SCAIVAULT_TOKEN=" + v.Token(), "AWS_SESSION_TOKEN=another"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", arguments, err)
		}
		return string(out)
	}
	found := scaivault("run", "--creds", "cloud/reader", "--", "env")
	for _, line := range []string{"\nAWS_ACCESS_KEY_ID=AKIA", "\nAWS_SECRET_ACCESS_KEY=", "\nAWS_SESSION_TOKEN=\n", "\nAWS_REGION=" + awstest.Region + "\n"} {
		if !strings.Contains("\n"+found, line) {
			t.Errorf("the command does not find %q", line)
		}
	}
	var first, kept struct {
		Version                      int
		AccessKeyID, SecretAccessKey string
		Expiration                   time.Time
	}
	file := filepath.Join(t.TempDir(), "kept")
	for i, into := range []any{&first, &kept} {
		arguments := []string{"aws", "credential-process", "cloud/reader", "--ttl", "30m", "--cache", file}
		if err := json.Unmarshal([]byte(scaivault(arguments...)), into); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if first.Version != 1 || first.AccessKeyID == "" || first != kept || time.Until(first.Expiration) > 30*time.Minute {
		t.Errorf("%s until %s, then %s", first.AccessKeyID, first.Expiration, kept.AccessKeyID)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	users, _ := front.Clients(awstest.Keys{ID: first.AccessKeyID, Secret: first.SecretAccessKey})
	if _, err := users.ListGroups(t.Context(), &iam.ListGroupsInput{}); err != nil {
		t.Errorf("use it: %v", err)
	}
}

// awsEngine makes an engine with the root of the guide, and a role that it may assume.
func (v *vault) awsEngine(t *testing.T, front *awstest.Front) (roleARN string) {
	t.Helper()
	guide, err := os.ReadFile("../../docs/engines/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, _ := strings.Cut(string(guide), "```json aws-root\n")
	policy, _, _ = strings.Cut(policy, "```")
	root := front.User(t, "/", "scaivault-root", policy)
	v.remember(root.Secret)
	_, err = v.admin.WriteSecret(t.Context(), rootPath("cloud"), api.SecretWrite{Data: map[string]json.RawMessage{
		"access_key_id": quoted(root.ID), "secret_access_key": quoted(root.Secret),
	}})
	if err != nil {
		t.Fatalf("write the root secret: %v", err)
	}
	config, err := json.Marshal(map[string]string{
		"region": awstest.Region, "root_credentials_path": rootPath("cloud"), "iam_endpoint": front.URL, "sts_endpoint": front.URL, "consistency_delay": "2s",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "cloud", Type: "aws", Config: config}); err != nil {
		t.Fatalf("make the engine: %v", err)
	}
	return front.Role(t, "app-deploy", listGroups)
}

func (v *vault) generate(t *testing.T, role string, r api.CredsRequest) api.Credential {
	t.Helper()
	c, err := v.admin.GenerateCredential(t.Context(), "cloud", role, r)
	if err != nil {
		t.Fatalf("have a credential of cloud/%s: %v", role, err)
	}
	v.remember(c.Data["secret_access_key"])
	if token := c.Data["session_token"]; token != "" {
		v.remember(token)
	}
	return c
}

// endsLater revokes and wants to hear that it is dead only later, but not after a moment.
func (v *vault) endsLater(t *testing.T, id string, latest time.Time) {
	t.Helper()
	pending, err := v.admin.RevokeLease(t.Context(), id, 0)
	if err != nil || pending == nil || pending.Revocation == nil || pending.Revocation.EffectiveAt == nil {
		t.Fatalf("revoke %s: %+v, %v", id, pending, err)
	}
	if at := *pending.Revocation.EffectiveAt; at.After(latest.Add(time.Second)) {
		t.Errorf("it is dead from %s on, after %s", at, latest)
	}
}

func awsKeys(c api.Credential) awstest.Keys {
	return awstest.Keys{ID: c.Data["access_key_id"], Secret: c.Data["secret_access_key"], Token: c.Data["session_token"]}
}

func mustWork(t *testing.T, front *awstest.Front, c api.Credential) {
	t.Helper()
	users, _ := front.Clients(awsKeys(c))
	if _, err := users.ListGroups(t.Context(), &iam.ListGroupsInput{}); err != nil {
		t.Errorf("use a credential: %v", err)
	}
}

func mustNotWork(t *testing.T, front *awstest.Front, c api.Credential) {
	t.Helper()
	users, _ := front.Clients(awsKeys(c))
	if _, err := users.ListGroups(t.Context(), &iam.ListGroupsInput{}); err == nil {
		t.Error("a dead credential works")
	}
}
