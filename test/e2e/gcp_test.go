package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/gcptest"
	"github.com/scaivault/scaivault/test/servertest"
)

const gcpProject = "projects/" + gcptest.Project

// gcpEngine makes an engine with the root of the guide, and a role for each kind of credential.
func (v *vault) gcpEngine(t *testing.T, source *gcptest.Server) {
	t.Helper()
	guide, err := os.ReadFile("../../docs/engines/gcp.md")
	if err != nil {
		t.Fatal(err)
	}
	root, app := source.AddAccount("scaivault-root"), source.AddAccount("app-reader")
	source.AddResource(gcpProject)
	source.DefineRole(gcpProject+"/roles/scaivault", gcptest.RoleOf(string(guide))...)
	source.DefineRole("roles/app.reader", "app.items.get")
	source.Grant(gcpProject, gcpProject+"/roles/scaivault", "serviceAccount:"+root.Email)
	source.Grant(gcpProject, "roles/app.reader", "serviceAccount:"+app.Email)
	key := string(source.AddKey(root.Email))
	for path, fields := range map[string]map[string]json.RawMessage{
		rootPath("cloud"): {"credentials": quoted(key)}, "infra/cloud/ca": {"certificate": quoted(string(source.CA))},
	} {
		if _, err := v.admin.WriteSecret(t.Context(), path, api.SecretWrite{Data: fields}); err != nil {
			t.Fatalf("write %s: %v", path, err)
		}
	}
	v.allow(t, "cloud", "system", "dynamic:cloud", api.PolicyRule{PathPattern: "infra/cloud/*", Permissions: []api.Permission{"read", "rotate"}})
	endpoints := map[string]string{}
	for _, name := range []string{"iam", "iamcredentials", "cloudresourcemanager", "oauth2"} {
		endpoints[name] = source.URL()
	}
	config, err := json.Marshal(map[string]any{
		"project": gcptest.Project, "root_credentials_path": rootPath("cloud"), "tls_ca_path": "infra/cloud/ca", "endpoints": endpoints, "iam_propagation": "1s",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "cloud", Type: "gcp", Config: config}); err != nil {
		t.Fatalf("make the engine: %v", err)
	}
	own := []map[string]any{{"resource": gcpProject, "roles": []string{"roles/app.reader"}}}
	v.role(t, "cloud", client.Document{"name": "key", "credential_type": "service_account_key", "service_account_email": app.Email})
	v.role(t, "cloud", client.Document{"name": "own", "credential_type": "service_account_key", "bindings": own})
	v.role(t, "cloud", client.Document{"name": "token", "credential_type": "access_token", "service_account_email": app.Email})
}

// rivals are logins to Google Cloud that somebody has already.
var rivals = []string{
	"CLOUDSDK_AUTH_ACCESS_TOKEN=another", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE=/another", "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE=/another",
	"GOOGLE_OAUTH_ACCESS_TOKEN=another", "GOOGLE_CREDENTIALS=another", "GOOGLE_APPLICATION_CREDENTIALS=/another",
}

// gcloud logs in by the first of these that is set, as Google's does, and says by which; and by a file only
// if nobody else can read it.
const gcloud = `#!/bin/sh
if [ -n "$CLOUDSDK_AUTH_ACCESS_TOKEN" ]; then echo "token $CLOUDSDK_AUTH_ACCESS_TOKEN"
elif [ -n "$CLOUDSDK_AUTH_ACCESS_TOKEN_FILE" ]; then echo "token file $CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"
elif [ -n "$CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE" ]; then
	echo "key $(stat -c %a "$CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE")"
	cat "$CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE"
fi
`

// TestRunGCP: run gives gcloud and Google's libraries the credential, of each kind, and nobody else's.
func TestRunGCP(t *testing.T) {
	t.Parallel()
	v, source, programs := newVault(t), gcptest.Start(t), t.TempDir()
	v.gcpEngine(t, source)
	if err := os.WriteFile(filepath.Join(programs, "gcloud"), []byte(gcloud), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(role string, args ...string) string {
		t.Helper()
		cmd := v.command(t, append([]string{"run", "--creds", "cloud/" + role, "--"}, args...)...)
		cmd.Env = append(append(cmd.Env, "PATH="+programs+":"+os.Getenv("PATH")), rivals...)
		cmd.Stderr = t.Output()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", role, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	token, ok := strings.CutPrefix(run("token", "gcloud", "projects", "list"), "token ")
	if holder, err := source.LogIn(t.Context(), token, ""); !ok || err != nil {
		t.Errorf("gcloud's token is refused: %v", err)
	} else if may, err := holder.May(t.Context(), gcpProject, "app.items.get"); !may {
		t.Errorf("gcloud's token may nothing: %v", err)
	}
	if out := run("token", "sh", "-c", "env | grep -c another; echo $GOOGLE_APPLICATION_CREDENTIALS"); out != "0" {
		t.Errorf("another login is seen: %s", out)
	}
	python, ok := cloudTool(t, "python3")
	for role, account := range map[string]string{"key": "app-reader@", "own": "v-own-"} {
		out := run(role, "gcloud", "projects", "list")
		var key map[string]string
		if text, private := strings.CutPrefix(out, "key 600\n"); !private || json.Unmarshal([]byte(text), &key) != nil || !strings.HasPrefix(key["client_email"], account) {
			t.Errorf("%s: gcloud's key is that of %q, in a private file: %t", role, key["client_email"], private)
		}
		if !ok {
			continue
		}
		if out := run(role, python, "-c", defaultLogin, source.URL(), string(source.CA)); !strings.HasPrefix(out, account) {
			t.Errorf("%s: the library logs in as %s", role, out)
		}
	}
}

// defaultLogin has Google's library find the login of its environment, and get a token with it, from the
// server of the test in the place of Google's.
const defaultLogin = `
import sys, tempfile
import google.auth
from google.auth.transport import requests
ca = tempfile.NamedTemporaryFile("w")
ca.write(sys.argv[2])
ca.flush()
def to_the_test(url, **options):
    return requests.Request()(url.replace("https://oauth2.googleapis.com", sys.argv[1]), verify=ca.name, **options)
login, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
login.refresh(to_the_test)
print(login.service_account_email)
`

// TestGCPExecCredential: kubectl shows a cluster the token, and asks for no other while it is kept.
func TestGCPExecCredential(t *testing.T) {
	t.Parallel()
	v, source := newVault(t), gcptest.Start(t)
	v.gcpEngine(t, source)
	kept := filepath.Join(t.TempDir(), "token.json")
	ask := func(info string, args ...string) (printed struct {
		APIVersion, Kind string
		Status           struct {
			Token               string
			ExpirationTimestamp time.Time
		}
	}) {
		t.Helper()
		cmd := v.command(t, append([]string{"gcp", "exec-credential"}, args...)...)
		cmd.Env = append(cmd.Env, "KUBERNETES_EXEC_INFO="+info)
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, &printed)
		}
		if err != nil || printed.Kind != "ExecCredential" {
			t.Fatalf("print a %q: %v", printed.Kind, err)
		}
		return printed
	}
	first := ask("", "cloud/token", "--ttl", "30m")
	if first.APIVersion != "client.authentication.k8s.io/v1" || time.Until(first.Status.ExpirationTimestamp) > 30*time.Minute {
		t.Errorf("a %s until %s", first.APIVersion, first.Status.ExpirationTimestamp)
	}
	if _, err := source.LogIn(t.Context(), first.Status.Token, ""); err != nil {
		t.Errorf("the token is refused: %v", err)
	}
	beta := ask(`{"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential"}`, "cloud/token", "--cache", kept)
	again := ask("", "cloud/token", "--cache", kept)
	if beta.APIVersion != "client.authentication.k8s.io/v1beta1" || again.APIVersion != first.APIVersion {
		t.Errorf("a %s, then a %s", beta.APIVersion, again.APIVersion)
	}
	if beta.Status != again.Status || beta.Status == first.Status {
		t.Error("the token is not kept, or is kept where nobody asked")
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}

	if out, code := v.run(t, "gcp", "exec-credential", "cloud/key"); code != 5 || !strings.Contains(out, "cloud/key gives no access tokens of Google Cloud") {
		t.Errorf("a key: %d, %s", code, out)
	}
	for l, err := range v.admin.Leases(t.Context(), client.LeaseFilter{Role: "key"}) {
		if err != nil || l.Status == api.LeaseActive {
			t.Errorf("the key that is of no use is %s, %v", l.Status, err)
		}
	}

	kubectl, ok := cloudTool(t, "kubectl")
	if !ok {
		return
	}
	shown := make(chan string, 100)
	cluster := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown <- r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"major": "1", "minor": "32", "gitVersion": "v1.32.3"}`)
	}))
	t.Cleanup(cluster.Close)
	for _, version := range []string{"v1", "v1beta1"} {
		v.kubectl(t, kubectl, cluster.URL, version, kept)
		select {
		case header := <-shown:
			if header != "Bearer "+beta.Status.Token {
				t.Errorf("%s: the cluster is shown another token", version)
			}
		default:
			t.Errorf("%s: the cluster is asked nothing", version)
		}
	}
}

// kubectl asks a cluster something, with the user of the guide's kubeconfig.
func (v *vault) kubectl(t *testing.T, program, cluster, version, kept string) {
	t.Helper()
	guide, err := servertest.Guide("gcp.md", "kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	plugin := v.command(t)
	user := strings.NewReplacer("k8s.io/v1\n", "k8s.io/"+version+"\n", "command: scaivault", "command: "+plugin.Path, "/run/user/1000/gke.json", kept).Replace(guide[0])
	document := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: gke
contexts: [{name: gke, context: {cluster: gke, user: gke}}]
clusters: [{name: gke, cluster: {server: %q, insecure-skip-tls-verify: true}}]
%s`, cluster, user)
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--kubeconfig", config, "get", "--raw", "/version")
	cmd.Env = plugin.Env
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "v1.32.3") {
		t.Errorf("kubectl with %s: %v: %s", version, err, out)
	}
}
