package gcp_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/gcp"
	"github.com/scaivault/scaivault/internal/fault"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	enginetest.Configs{
		Type: gcp.Type{},
		Good: map[string]any{"project": "my-project-123", "root_credentials_path": "infra/root"},
		Refused: enginetest.Refusals{
			"no project":             {map[string]any{"project": ""}, "project"},
			"a project's number":     {map[string]any{"project": "123456789"}, "project"},
			"a path in the project":  {map[string]any{"project": "a-project/x"}, "project"},
			"names of one's own":     {map[string]any{"username_template": "x-{{random:11}}"}, "username_template"},
			"endless propagation":    {map[string]any{"iam_propagation": "2h"}, "iam_propagation"},
			"an unknown service":     {map[string]any{"endpoints": map[string]string{"storage": "https://x"}}, "storage"},
			"a service in clear":     {map[string]any{"endpoints": map[string]string{"iam": "http://iam.internal"}}, "not encrypted"},
			"credentials in the URL": {map[string]any{"endpoints": map[string]string{"sts": "https://root:hunter2@sts.internal"}}, "endpoints.sts"},
		},
	}.Run(t)
}

// Where the root is sent is shown, so that a change of it needs the right to the root.
func TestEndpointIsShown(t *testing.T) {
	t.Parallel()
	endpoint := func(document string) string {
		c, err := gcp.Type{}.ParseConfig(json.RawMessage(document))
		if err != nil {
			t.Fatalf("%s: %v", document, err)
		}
		return c.Endpoint
	}
	google := endpoint(`{"project": "my-project-123", "root_credentials_path": "r"}`)
	if google != endpoint(`{"project": "my-project-123", "root_credentials_path": "r", "endpoints": {"iam": "https://iam.googleapis.com"}}`) {
		t.Error("Google's own endpoint counts as another one")
	}
	for _, service := range []string{"iam", "iamcredentials", "cloudresourcemanager", "pubsub", "secretmanager", "oauth2", "sts"} {
		if endpoint(`{"project": "my-project-123", "root_credentials_path": "r", "endpoints": {"`+service+`": "https://elsewhere.example"}}`) == google {
			t.Errorf("that %s is elsewhere is not shown", service)
		}
	}
}

// A key is one account's, whatever project it leads to; another IAM has other accounts.
func TestRootHome(t *testing.T) {
	t.Parallel()
	home := func(project, more string) string {
		c, err := gcp.Type{}.ParseConfig(json.RawMessage(`{"project": "` + project + `", "root_credentials_path": "r"` + more + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return c.RootHome
	}
	own := home("my-project-123", "")
	if own == "" || own != home("another-project-4", "") {
		t.Errorf("the root is at %q", own)
	}
	if own == home("my-project-123", `, "endpoints": {"iam": "https://elsewhere.example"}`) {
		t.Error("the accounts of another IAM are the same")
	}
}

// The grammar of an endpoint: nothing passes that two readers could understand in two ways.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	parse := func(text string) (engine.Config, error) {
		document, err := json.Marshal(map[string]any{"project": "my-project-123", "root_credentials_path": "r", "endpoints": map[string]string{"iam": text}})
		if err != nil {
			t.Fatal(err)
		}
		return gcp.Type{}.ParseConfig(document)
	}
	for _, text := range []string{
		"https://iam.googleapis.com", "https://iam.googleapis.com:443", "https://iam-abc.p.googleapis.com", "https://10.0.0.7:8443",
		"https://[2001:db8::1]", "https://[2001:db8::1]:8443", "http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080",
	} {
		if _, err := parse(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		"iam.googleapis.com", "//iam.googleapis.com", "https://", "https:///", "https:iam", "ftp://iam.googleapis.com", "file:///etc/passwd",
		"https://iam.googleapis.com/", "https://iam.googleapis.com/v1", "https://iam.googleapis.com?x", "https://iam.googleapis.com#x",
		"https://user@iam.googleapis.com", "https://user:hunter2@iam.googleapis.com", "https://iam.googleapis.com@evil.example",
		"https://iam.googleapis.com:", "https://iam.googleapis.com:0", "https://iam.googleapis.com:65536", "https://iam.googleapis.com:0443", "https://iam.googleapis.com:+443",
		"https://iam googleapis.com", "https://iam.googleapis.com\\@evil", "https://iam.googleapis.com%2Eevil", "https://%69am.googleapis.com", "https://IAM.googleapis.com",
		"https://-iam.example", "https://iam.example-", "https://.", "https://{{host}}", "https://iam.googleapis.com\n", " https://iam.googleapis.com",
		"http://10.0.0.7", "http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://0.0.0.0", "https://[fe80::1%25eth0]", "https://[::1", "https://::1", "HTTPS://iam.googleapis.com",
		"https://" + strings.Repeat("a", 300),
	} {
		if c, err := parse(text); fault.CodeOf(err) != fault.InvalidConfig || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %s, %v", text, c.Endpoint, err)
		}
	}
}

func FuzzEndpoints(f *testing.F) {
	f.Add("https://iam.googleapis.com")
	f.Add("http://[::1]:1")
	f.Fuzz(func(t *testing.T, text string) {
		document, err := json.Marshal(map[string]any{"project": "my-project-123", "root_credentials_path": "r", "endpoints": map[string]string{"iam": text}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := gcp.Type{}.ParseConfig(document)
		if err != nil && fault.CodeOf(err) != fault.InvalidConfig && fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil && strings.ContainsAny(c.Endpoint, "@?#%\\\n") {
			t.Errorf("%q: %q", text, c.Endpoint)
		}
	})
}
