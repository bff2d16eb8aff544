package cli

import (
	"encoding/base64"
	"os"
	"slices"
	"testing"
)

// The key of a service account is a file of the caller's alone, as long as the command runs.
func TestKeyFile(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	n := connection{plugin: "gcp", fields: map[string]string{"private_key_data": base64.StdEncoding.EncodeToString([]byte(`{"type": "service_account"}`))}}
	remove, err := n.keyFile()
	if err != nil {
		t.Fatal(err)
	}
	path := n.fields["key_file"]
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != `{"type": "service_account"}` {
		t.Errorf("the file holds %s, %v", text, err)
	}
	if got, err := n.environment(nil); err != nil || !slices.Equal(got, []string{"CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE=" + path, "GOOGLE_APPLICATION_CREDENTIALS=" + path}) {
		t.Errorf("the command finds %v, %v", got, err)
	}
	remove()
	remove()
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}

	n = connection{fields: map[string]string{"private_key_data": "%"}}
	if _, err := n.keyFile(); err == nil {
		t.Error("what is no base64 is taken for a key")
	}
	n = connection{fields: map[string]string{"password": "p"}}
	if remove, err := n.keyFile(); err != nil || n.fields["key_file"] != "" {
		t.Errorf("a credential without a key has a file: %v", err)
	} else {
		remove()
	}
}
