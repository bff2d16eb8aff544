package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/awstest"
	"github.com/scaivault/scaivault/test/azuretest"
	"github.com/scaivault/scaivault/test/gcptest"
	"github.com/scaivault/scaivault/test/tokentest"

	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// cloud is a source behind a relay, as an engine of it needs it.
type cloud struct {
	source    string // where the relay leads
	kind      string
	config    map[string]any // endpoints apart
	endpoints func(url string) map[string]any
	root      map[string]string // the field spoilt is the one to change for another root
	spoilt    string
	role      client.Document
	others    []client.Document // credentials of other kinds
	public    []string          // fields of a credential that are no secret
	renews    bool
	rotates   bool
	works     func(t *testing.T, data map[string]string) bool
}

// clouds are all sources that are reached by HTTP.
var clouds = map[string]func(t *testing.T) cloud{"aws": inAWS, "azure": inAzure, "gcp": inGoogle, "script": inTokens}

func inAWS(t *testing.T) cloud {
	t.Helper()
	front := awstest.Start(t).Front(t)
	guide, err := os.ReadFile("../../docs/engines/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, _ := strings.Cut(string(guide), "```json aws-root\n")
	policy, _, _ = strings.Cut(policy, "```")
	root := front.User(t, "/", "scaivault-root", policy)
	return cloud{
		source: front.URL, kind: "aws",
		config:    map[string]any{"region": awstest.Region, "consistency_delay": "1s"},
		endpoints: func(url string) map[string]any { return map[string]any{"iam_endpoint": url, "sts_endpoint": url} },
		root:      map[string]string{"access_key_id": root.ID, "secret_access_key": root.Secret}, spoilt: "secret_access_key",
		role:   client.Document{"credential_type": "iam_user", "policy_document": listGroups},
		others: []client.Document{{"credential_type": "assumed_role", "role_arns": []string{front.Role(t, "app-deploy", listGroups)}}},
		public: []string{"access_key_id"}, renews: true, rotates: true,
		works: func(t *testing.T, data map[string]string) bool {
			t.Helper()
			users, _ := front.Clients(awstest.Keys{ID: data["access_key_id"], Secret: data["secret_access_key"]})
			_, err := users.ListGroups(t.Context(), &iam.ListGroupsInput{})
			return err == nil
		},
	}
}

func inAzure(t *testing.T) cloud {
	t.Helper()
	source := azuretest.Start(t)
	root := source.NewRoot(t, azuretest.Rights{
		Permissions: []string{"Application.ReadWrite.OwnedBy"}, OwnsItself: true,
		Roles: map[string]string{source.Scope(): "Role Based Access Control Administrator"},
	})
	existing, _ := source.NewApplication("existing", root.PrincipalID)
	return cloud{
		source: source.URL(), kind: "azure",
		config: map[string]any{"tenant_id": source.Tenant, "subscription_id": source.Subscription, "token_lifetime": "1s"},
		endpoints: func(url string) map[string]any {
			return map[string]any{"login_endpoint": url, "graph_endpoint": url, "resource_manager_endpoint": url}
		},
		root: map[string]string{"client_id": root.ClientID, "client_secret": root.ClientSecret}, spoilt: "client_secret",
		role:   client.Document{"azure_roles": []map[string]string{{"role_name": "Reader"}}},
		others: []client.Document{{"application_object_id": existing}},
		public: []string{"client_id", "tenant_id"}, rotates: true,
		works: func(t *testing.T, data map[string]string) bool {
			t.Helper()
			session, err := source.Login(t.Context(), data["client_id"], data["client_secret"])
			if err != nil {
				return false
			}
			defer session.Close()
			return session.Works(t.Context())
		},
	}
}

func inGoogle(t *testing.T) cloud {
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
	app := source.AddAccount("app-reader").Email
	return cloud{
		source: source.URL(), kind: "gcp",
		config: map[string]any{"project": gcptest.Project, "iam_propagation": "1s"},
		endpoints: func(url string) map[string]any {
			return map[string]any{"endpoints": map[string]string{"iam": url, "iamcredentials": url, "cloudresourcemanager": url, "oauth2": url}}
		},
		root: map[string]string{"credentials": string(source.AddKey(root.Email))}, spoilt: "credentials",
		role: client.Document{"credential_type": "service_account_key", "bindings": []map[string]any{
			{"resource": project, "roles": []string{reader}}}},
		others: []client.Document{
			{"credential_type": "service_account_key", "service_account_email": app},
			{"credential_type": "access_token", "service_account_email": app},
		},
		public: []string{"service_account_email"}, rotates: true,
		works: func(t *testing.T, data map[string]string) bool {
			t.Helper()
			h, err := source.LogIn(t.Context(), "", data["private_key_data"])
			if err != nil {
				return false
			}
			ok, err := h.May(t.Context(), project, may)
			return ok && err == nil
		},
	}
}

// inTokens is the example script, over its service.
func inTokens(t *testing.T) cloud {
	t.Helper()
	service := tokentest.New()
	server := httptest.NewServer(service)
	t.Cleanup(server.Close)
	script, err := os.ReadFile("../../docs/examples/token.star")
	if err != nil {
		t.Fatal(err)
	}
	return cloud{
		source: server.URL, kind: "custom",
		config: map[string]any{"runtime": "starlark", "script": string(script)},
		endpoints: func(url string) map[string]any {
			return map[string]any{"http_hosts": []string{strings.TrimPrefix(url, "https://")}, "parameters": map[string]string{"url": url}}
		},
		root: map[string]string{"token": service.Root}, spoilt: "token",
		role: client.Document{"parameters": map[string]any{"scopes": []string{"read"}}}, renews: true,
		works: func(t *testing.T, data map[string]string) bool {
			t.Helper()
			return tokentest.Works(t.Context(), server.Listener.Addr().String(), data["token"])
		},
	}
}

// refusals are the errors that a caller was told of.
type refusals []string

// want notes an error, which must be one of these, and must come before patience is over.
func (r *refusals) want(t *testing.T, what string, begun time.Time, err error, codes ...client.Code) {
	t.Helper()
	mustFail(t, what, err, codes...)
	var refused *client.Error
	if errors.As(err, &refused) {
		*r = append(*r, fmt.Sprintf("%s: %v %v", what, err, refused.Details))
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("%s took %s", what, took)
	}
}

// A source that echoes what it is sent in its failures, that is gone, that does not take the root: every operation
// ends with an error that says so, no lease is closed before what it bears is dead, what was to die is dead when
// the source is back, and no secret stands anywhere.
func TestCloudsFail(t *testing.T) {
	t.Parallel()
	for name, start := range clouds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			v := newVault(t, append(scripting(), "LOG_LEVEL=debug")...)
			r, lead := newRelay(t, v)
			lead(c.source)
			v.cloudEngine(t, r, c)
			give := func(role string) api.Credential {
				t.Helper()
				got, err := v.admin.GenerateCredential(t.Context(), "cloud", role, api.CredsRequest{})
				if err != nil {
					t.Fatalf("have a credential of %s: %v; output: %s", role, err, v.Output())
				}
				v.rememberData(got.Data, c.public)
				return got
			}
			kept := give("reader")
			for i, role := range c.others {
				role["name"] = fmt.Sprint("other-", i)
				v.role(t, "cloud", role)
				give(fmt.Sprint("other-", i))
			}
			var said refusals
			for _, failure := range []struct {
				name  string
				state int32
			}{{"echoes", echoes}, {"gone", gone}} {
				doomed := give("reader")
				if !c.works(t, doomed.Data) {
					t.Fatalf("%s: a credential does not work", failure.name)
				}
				v.mustSetTimeout(t, "5s")
				r.state.Store(failure.state)
				v.failEverywhere(t, c, failure.name, doomed.LeaseID, &said)
				if !c.works(t, doomed.Data) {
					t.Errorf("%s: the credential is dead, though nobody could kill it", failure.name)
				}
				r.state.Store(passes)
				v.mustSetTimeout(t, "60s")
				eventually(t, 3*time.Minute, "all that was to die is dead", func() bool {
					return len(v.leases(t, client.LeaseFilter{Engine: "cloud", Status: api.LeaseRevoking}))+
						len(v.leases(t, client.LeaseFilter{Engine: "cloud", Status: api.LeaseIssuing})) == 0
				})
				if c.works(t, doomed.Data) {
					t.Errorf("%s: its lease is revoked, and the credential works", failure.name)
				}
			}
			v.anotherRoot(t, c, &said)
			if !c.works(t, kept.Data) {
				t.Error("a credential that nobody revoked does not work")
			}
			if _, err := v.admin.RotateRoot(t.Context(), "cloud"); c.rotates != (err == nil) {
				t.Errorf("rotate the root: %v", err)
			}
			v.rememberRoot(t, c)
			if pending, err := v.admin.RevokeLease(t.Context(), kept.LeaseID, time.Minute); err != nil {
				t.Errorf("revoke: %v", err)
			} else if pending == nil && c.works(t, kept.Data) {
				t.Error("a credential is told to be dead, and works")
			}
			v.searchAll(t, said)
		})
	}
}

// failEverywhere tries every operation at a source that does not answer as it should.
func (v *vault) failEverywhere(t *testing.T, c cloud, name, doomed string, said *refusals) {
	t.Helper()
	begun := time.Now()
	_, err := v.admin.GenerateCredential(t.Context(), "cloud", "reader", api.CredsRequest{})
	said.want(t, name+", issue", begun, err, client.EngineError, client.EngineUnavailable)
	for i := range c.others {
		if name != "echoes" { // which has something to tell
			break
		}
		begun = time.Now()
		_, err := v.admin.GenerateCredential(t.Context(), "cloud", fmt.Sprint("other-", i), api.CredsRequest{})
		said.want(t, fmt.Sprint(name, ", issue another ", i), begun, err, client.EngineError, client.EngineUnavailable)
	}
	begun = time.Now()
	_, err = v.admin.RenewLease(t.Context(), doomed, api.RenewRequest{})
	if c.renews {
		said.want(t, name+", renew", begun, err, client.EngineError, client.EngineUnavailable)
	} else {
		said.want(t, name+", renew", begun, err, "not_renewable")
	}
	if c.rotates {
		begun = time.Now()
		_, err = v.admin.RotateRoot(t.Context(), "cloud")
		said.want(t, name+", rotate the root", begun, err, client.EngineError, client.EngineUnavailable)
	}
	begun = time.Now()
	err = v.setTimeout(t, "6s")
	said.want(t, name+", change the engine", begun, err, client.InvalidConfig, client.EngineError, client.EngineUnavailable)
	begun = time.Now()
	health, err := v.admin.EngineHealth(t.Context(), "cloud")
	if err != nil || health.Status == api.EngineHealthy || health.Error == nil || time.Since(begun) > time.Minute {
		t.Fatalf("%s, health: %+v, %v", name, health, err)
	}
	if *said = append(*said, *health.Error); health.Status != api.EngineUnreachable && c.kind != "custom" {
		t.Errorf("%s, health: %s, %s", name, health.Status, *health.Error)
	}
	begun = time.Now()
	pending, err := v.admin.RevokeLease(t.Context(), doomed, time.Second)
	if err != nil || pending == nil || pending.Status != api.LeaseRevoking || time.Since(begun) > time.Minute {
		t.Fatalf("%s, revoke: %+v, %v", name, pending, err)
	}
	eventually(t, time.Minute, "an attempt has failed and is told of", func() bool {
		l := v.lease(t, doomed)
		return l.Revocation.LastError != "" && l.Revocation.Attempts > 0
	})
	if test, err := v.admin.TestRole(t.Context(), "cloud", "reader"); err == nil && test.OK {
		t.Errorf("%s: the trial of the role succeeds", name)
	} else {
		*said = append(*said, fmt.Sprintf("%+v, %v", test, err))
	}
}

// setTimeout changes how long an operation may take.
func (v *vault) setTimeout(t *testing.T, timeout string) error {
	t.Helper()
	_, err := v.admin.UpdateEngine(t.Context(), "cloud", api.EnginePatch{Config: map[string]json.RawMessage{"operation_timeout": quoted(timeout)}}, false)
	return err
}

func (v *vault) mustSetTimeout(t *testing.T, timeout string) {
	t.Helper()
	if err := v.setTimeout(t, timeout); err != nil {
		t.Fatalf("change the engine: %v", err)
	}
}

// anotherRoot writes a root secret that the source does not take, and takes it back.
func (v *vault) anotherRoot(t *testing.T, c cloud, said *refusals) {
	t.Helper()
	wrong := map[string]string{}
	for field, value := range c.root {
		wrong[field] = value
	}
	wrong[c.spoilt] = strings.Repeat("wrongroot", 4) + "7"
	v.writeFields(t, rootPath("cloud"), wrong)
	v.remember(wrong[c.spoilt])
	eventually(t, time.Minute, "health says that the root is not taken", func() bool {
		h, err := v.admin.EngineHealth(t.Context(), "cloud")
		*said = append(*said, fmt.Sprintf("%+v, %v", h, err))
		return err == nil && h.Status == api.EngineMisconfigured && h.Error != nil
	})
	v.writeFields(t, rootPath("cloud"), c.root)
	eventually(t, time.Minute, "the engine is well again", func() bool {
		h, err := v.admin.EngineHealth(t.Context(), "cloud")
		return err == nil && h.Status == api.EngineHealthy
	})
}

// engineConfig is the configuration of an engine that reaches the source by a relay.
func (c cloud) engineConfig(url string) map[string]any {
	config := map[string]any{"root_credentials_path": rootPath("cloud"), "tls_ca_path": "infra/cloud/ca", "operation_timeout": "60s"}
	maps.Copy(config, c.config)
	maps.Copy(config, c.endpoints(url))
	return config
}

// cloudEngine makes the engine "cloud" with the role "reader".
func (v *vault) cloudEngine(t *testing.T, r *relay, c cloud) {
	t.Helper()
	for _, value := range c.root {
		v.remember(value)
	}
	v.writeFields(t, rootPath("cloud"), c.root)
	v.writeFields(t, "infra/cloud/ca", map[string]string{"certificate": r.ca})
	raw, err := json.Marshal(c.engineConfig(r.url))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "cloud", Type: c.kind, Config: raw}); err != nil {
		t.Fatalf("make the engine: %v; output: %s", err, v.Output())
	}
	c.role["name"] = "reader"
	v.role(t, "cloud", c.role)
}

func (v *vault) writeFields(t *testing.T, path string, fields map[string]string) {
	t.Helper()
	data := map[string]json.RawMessage{}
	for field, value := range fields {
		data[field] = quoted(value)
	}
	if _, err := v.admin.WriteSecret(t.Context(), path, api.SecretWrite{Data: data}); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
}

// rememberData takes the secrets of a credential, and of a key in the form that Google gives it.
func (v *vault) rememberData(data map[string]string, public []string) {
	for field, value := range data {
		if !slices.Contains(public, field) {
			v.remember(value)
			v.rememberKey(value)
		}
	}
}

// rememberKey takes the private key out of the file of an account of Google's, which may be in base64.
func (v *vault) rememberKey(file string) {
	if plain, err := base64.StdEncoding.DecodeString(file); err == nil {
		file = string(plain)
	}
	var key struct {
		PrivateKey string `json:"private_key"`
	}
	if json.Unmarshal([]byte(file), &key) == nil {
		for line := range strings.Lines(key.PrivateKey) {
			if line = strings.TrimSpace(line); len(line) == 64 {
				v.remember(line)
			}
		}
	}
}

// rememberRoot takes what a rotation has written.
func (v *vault) rememberRoot(t *testing.T, c cloud) {
	t.Helper()
	secret, err := v.admin.ReadSecret(t.Context(), rootPath("cloud"), 0)
	if err != nil {
		t.Fatal(err)
	}
	var value string
	if err := json.Unmarshal(secret.Data[c.spoilt], &value); err != nil {
		t.Fatal(err)
	}
	if c.rotates == (value == c.root[c.spoilt]) {
		t.Errorf("the root is as it was: %t", c.rotates)
	}
	v.remember(value)
	v.rememberKey(value)
}

// searchAll looks for secrets in what callers and administrators were shown; the store and the output are
// searched at the end of every test.
func (v *vault) searchAll(t *testing.T, said refusals) {
	t.Helper()
	find := v.finder()
	find(t, "an error", []byte(strings.Join(said, "\n")))
	for _, path := range []string{
		"/v1/health/detailed", "/v1/dynamic/engines", "/v1/dynamic/engines/cloud", "/v1/dynamic/engines/cloud/health",
		"/v1/dynamic/engines/cloud/roles", "/v1/dynamic/leases?limit=1000", "/v1/audit/logs?limit=1000",
	} {
		status, body := v.raw(t, "GET", path, "")
		if status != 200 || len(body) < 3 {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
		find(t, path, []byte(body))
	}
	find(t, "the metrics", []byte(v.Metrics(t)))
	if !strings.Contains(strings.Join(said, "\n"), "echoes, issue: ") || !strings.Contains(v.Output(), "req_") {
		t.Errorf("what was to be searched is not there: %v", said)
	}
}
