package e2e_test

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/awstest"
)

// TestAWSWithoutRootSecret is the life of credentials that are made with the identity of the server's
// host, where its operator gives that to the engine, and after these keys are no longer taken.
func TestAWSWithoutRootSecret(t *testing.T) {
	t.Parallel()
	front := awstest.Start(t).Front(t)
	guide, err := os.ReadFile("../../docs/engines/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, _ := strings.Cut(string(guide), "```json aws-root\n")
	policy, _, _ = strings.Cut(policy, "```")
	metadata := front.Metadata(t, front.Role(t, "scaivault-host", policy))
	role := front.Role(t, "app-deploy", listGroups)
	v := newVault(t, "AMBIENT_AWS_SOURCE=instance", "AMBIENT_AWS_ENGINES=tnt_default/cloud",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT="+metadata.URL, "AWS_ENDPOINT_URL_IAM="+front.URL, "AWS_ENDPOINT_URL_STS="+front.URL)
	next := func() { // the keys of the host, of which nothing may be written anywhere
		keys := metadata.Renew(t)
		v.remember(keys.Secret, keys.Token)
	}
	next()
	ambient := func(name string) api.EngineRequest {
		config, err := json.Marshal(map[string]any{"region": awstest.Region, "ambient": true, "consistency_delay": "1s"})
		if err != nil {
			t.Fatal(err)
		}
		return api.EngineRequest{Name: name, Type: "aws", Config: config}
	}
	if _, err := v.admin.CreateEngine(t.Context(), ambient("other")); !errors.Is(err, client.InvalidConfig) || !strings.Contains(err.Error(), "AMBIENT_AWS_ENGINES") {
		t.Errorf("an engine that the operator has not named: %v", err)
	}
	if metadata.Taken() != 0 {
		t.Error("the keys were taken for it")
	}
	if _, err := v.admin.CreateEngine(t.Context(), ambient("cloud")); err != nil {
		t.Fatalf("make the engine: %v", err)
	}
	v.role(t, "cloud", client.Document{"name": "reader", "credential_type": "iam_user", "policy_document": listGroups})
	v.role(t, "cloud", client.Document{"name": "deployer", "credential_type": "assumed_role", "role_arns": []string{role}})
	for name, c := range map[string]struct {
		fields client.Document
		code   client.Code
	}{
		"twelve hours":     {client.Document{"credential_type": "assumed_role", "role_arns": []string{role}, "max_ttl": "12h"}, "invalid_duration"},
		"federation_token": {client.Document{"credential_type": "federation_token", "policy_document": listGroups}, "invalid_config"},
		"session_token":    {client.Document{"credential_type": "session_token"}, "invalid_config"},
	} {
		c.fields["name"] = "refused"
		_, err := v.admin.CreateRole(t.Context(), "cloud", c.fields)
		mustFail(t, name, err, c.code)
	}
	if _, err := v.admin.RotateRoot(t.Context(), "cloud"); !errors.Is(err, client.InvalidConfig) {
		t.Errorf("rotate a root that is the host's: %v", err)
	}
	if h, err := v.admin.EngineHealth(t.Context(), "cloud"); err != nil || h.Status != "healthy" || h.Details["root"] != "host: instance" || !strings.Contains(h.Details["identity"], "assumed-role/scaivault-host/") {
		t.Errorf("health: %+v, %v", h, err)
	}

	user, session := v.generate(t, "reader", api.CredsRequest{}), v.generate(t, "deployer", api.CredsRequest{})
	mustWork(t, front, user)
	mustWork(t, front, session)
	metadata.Forget() // the role was taken away and given again: AWS refuses keys that had not ended
	next()
	eventually(t, time.Minute, "keys that are taken are used", func() bool {
		c, err := v.admin.GenerateCredential(t.Context(), "cloud", "reader", api.CredsRequest{})
		if err == nil {
			v.remember(c.Data["secret_access_key"])
		}
		return err == nil
	})
	second := v.generate(t, "reader", api.CredsRequest{})
	mustWork(t, front, second)
	name := v.lease(t, second.LeaseID).Username
	v.Kill(t)
	metadata.Forget()
	next()
	v.again(t)
	for _, c := range []api.Credential{user, second} {
		v.endsLater(t, c.LeaseID, time.Now().Add(time.Minute))
		mustNotWork(t, front, c)
	}
	eventually(t, time.Minute, "the user is gone", func() bool { return !slices.Contains(front.Users(t), name) })
	if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chain does not verify: %+v, %v", report, err)
	}
}
