package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/azuretest"
	"github.com/scaivault/scaivault/test/servertest"
)

// azUser is somebody who has the Azure CLI, and settings of his own in it.
type azUser struct {
	v      *vault
	source *azuretest.Server
	before azuretest.Left
	own    string // his settings
	temp   string // where what lives for a moment is
	spied  string // what az was called with
	path   string
}

// newAzUser is nil where there is no Azure CLI: scripts/install-cloud-tools.sh has declared that.
func newAzUser(t *testing.T) *azUser {
	t.Helper()
	az, ok := cloudTool(t, "az")
	if !ok {
		return nil
	}
	u := &azUser{v: newVault(t), source: azuretest.Start(t), own: t.TempDir(), temp: t.TempDir(), spied: t.TempDir()}
	root := u.source.NewRoot(t, azuretest.Rights{
		Permissions: []string{"Application.ReadWrite.OwnedBy"}, OwnsItself: true,
		Roles: map[string]string{u.source.Scope(): "Role Based Access Control Administrator"},
	})
	u.before = u.source.Left()
	u.v.azureEngine(t, u.source, root)
	u.settings(t)
	u.program(t, fmt.Sprintf(`printf '%%s\n' "$@" "AZURE_CONFIG_DIR=$AZURE_CONFIG_DIR" >>'%[1]s/arguments'
if [ "$1" = rest ]; then
	cp -Rp "$AZURE_CONFIG_DIR" '%[1]s/folder'
fi
exec '%[2]s' "$@"`, u.spied, az))
	return u
}

// settings makes az use the server of the test.
func (u *azUser) settings(t *testing.T) {
	t.Helper()
	clouds := strings.Join([]string{
		"[tests]", "endpoint_active_directory = " + u.source.LoginEndpoint(), "endpoint_active_directory_resource_id = https://management.azure.com",
		"endpoint_management = " + u.source.URL(), "endpoint_resource_manager = " + u.source.URL(),
		"endpoint_active_directory_graph_resource_id = " + u.source.URL(), "",
	}, "\n")
	for name, content := range map[string]string{
		"config": "[cloud]\nname = tests\n[logging]\nenable_log_file = yes\nlog_dir = " + u.own + "\n", "clouds.config": clouds, "ca.pem": u.source.CA, "service_principal_entries.json": "[]",
	} {
		if err := os.WriteFile(filepath.Join(u.own, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// program is the az that is found in PATH.
func (u *azUser) program(t *testing.T, script string) {
	t.Helper()
	u.path = t.TempDir()
	if err := os.WriteFile(filepath.Join(u.path, "az"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (u *azUser) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := u.v.command(t, append([]string{"az"}, args...)...)
	cmd.Env = append(cmd.Env, "PATH="+u.path+":"+os.Getenv("PATH"), "HOME="+t.TempDir(), "TMPDIR="+u.temp, "AZURE_CONFIG_DIR="+u.own,
		"REQUESTS_CA_BUNDLE="+filepath.Join(u.own, "ca.pem"))
	return cmd
}

func (u *azUser) run(t *testing.T, args ...string) (out, said string, code int) {
	t.Helper()
	cmd := u.command(t, args...)
	var text, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &errors
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("%v: %v", args, err)
	}
	return text.String(), errors.String(), cmd.ProcessState.ExitCode()
}

// nothingLeft wants the folder to be gone, the credential to be revoked, and his settings to be as they were.
func (u *azUser) nothingLeft(t *testing.T) {
	t.Helper()
	if entries, err := os.ReadDir(u.temp); err != nil || len(entries) > 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
	for l, err := range u.v.admin.Leases(t.Context(), client.LeaseFilter{}) {
		if err != nil || l.Status == api.LeaseActive {
			t.Errorf("the lease %s is %s, %v", l.LeaseID, l.Status, err)
		}
	}
	now := u.source.Left()
	if now.Recycled = u.before.Recycled; now != u.before {
		t.Errorf("at Azure are %s, and there were %s", now, u.before)
	}
	if kept, err := os.ReadFile(filepath.Join(u.own, "service_principal_entries.json")); err != nil || string(kept) != "[]" {
		t.Errorf("his own logins are %q, %v", kept, err)
	}
}

// TestAz: the real Azure CLI does what the credential may, logged in by a secret that is shown nowhere and gone
// when it ends; the login of who calls it stays as it is.
func TestAz(t *testing.T) {
	t.Parallel()
	u := newAzUser(t)
	if u == nil {
		return
	}
	u.source.HideSubscription(1)
	out, said, code := u.run(t, "cloud/reader", "rest", "--method", "get", "--url", u.source.Scope()+"/resourceGroups/app?api-version=2021-04-01")
	if code != 0 || !strings.Contains(out, "Succeeded") || !strings.Contains(said, "no subscription yet") {
		t.Fatalf("az ended with %d: %s%s", code, out, said)
	}
	u.nothingLeft(t)

	folder := filepath.Join(u.spied, "folder")
	var logins []struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	if kept, err := os.ReadFile(filepath.Join(folder, "service_principal_entries.json")); err != nil || json.Unmarshal(kept, &logins) != nil || len(logins) != 1 {
		t.Fatalf("az keeps %d logins, %v", len(logins), err)
	}
	u.v.remember(logins[0].Secret)
	if session, err := u.source.Login(t.Context(), logins[0].ID, logins[0].Secret); err == nil {
		session.Close()
		t.Error("the secret works after az has ended")
	}
	arguments, err := os.ReadFile(filepath.Join(u.spied, "arguments"))
	if err != nil || !bytes.Contains(arguments, []byte("--password=@-\n")) || bytes.Contains(arguments, []byte(logins[0].Secret)) {
		t.Errorf("az was called with %s, %v", bytes.ReplaceAll(arguments, []byte(logins[0].Secret), []byte("THE SECRET")), err)
	}
	if bytes.Contains(arguments, []byte("AZURE_CONFIG_DIR="+u.own)) {
		t.Error("az had the settings of who called it")
	}
	if strings.Contains(out+said, logins[0].Secret) {
		t.Error("the secret is printed")
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info, err)
	}
	for _, dir := range []string{folder, u.own} { // his own has a log of az
		standsIn(t, dir, logins[0].Secret, "service_principal_entries.json")
	}
	if _, err := os.Stat(filepath.Join(u.own, "az.log")); err != nil {
		t.Errorf("his settings do not hold: %v", err)
	}
}

// standsIn wants a secret to be in one file at most.
func standsIn(t *testing.T, dir, secret, name string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if entry.Name() != name && bytes.Contains(content, []byte(secret)) {
			t.Errorf("the secret stands in %s, too", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Another program in the place of az finds az logged in, and its exit code is passed on.
func TestAzExec(t *testing.T) {
	t.Parallel()
	u := newAzUser(t)
	if u == nil {
		return
	}
	out, said, code := u.run(t, "--exec", "cloud/reader", "sh", "-c", `az account show --query "[id, user.type]" --output tsv; echo "$SCAIVAULT_TOKEN"; exit 7`)
	if code != 7 || out != u.source.Subscription+"\nservicePrincipal\n\n" {
		t.Errorf("it ended with %d: %s%s", code, out, said)
	}
	u.nothingLeft(t)

	u.source.Fail(func(op string) azuretest.Fault { return azuretest.Fault{Before: op == "GET login"} })
	out, said, code = u.run(t, "--exec", "cloud/reader", "touch", filepath.Join(u.spied, "ran"))
	if code != 1 || out != "" || !strings.Contains(said, "scaivault: log in with az: ERROR: ") {
		t.Errorf("a login that fails: %d: %s%s", code, out, said)
	}
	if _, err := os.Stat(filepath.Join(u.spied, "ran")); err == nil {
		t.Error("the program was run without a login")
	}
	u.nothingLeft(t)
}

// A signal reaches az, at its login, too, and nothing is left. az is a program of the test's: it waits.
func TestAzSignals(t *testing.T) {
	t.Parallel()
	u := newAzUser(t)
	if u == nil {
		return
	}
	for name, try := range map[string]struct {
		script string
		signal syscall.Signal
		code   int
	}{
		"at the login": {`touch '%s'; exec sleep 600`, syscall.SIGTERM, 143},
		"at az":        {`if [ "$1" = login ]; then echo '[{"id": "1", "tenantId": "2"}]'; else touch '%s'; exec sleep 600; fi`, syscall.SIGINT, 130},
	} {
		runs := filepath.Join(t.TempDir(), "runs")
		u.program(t, fmt.Sprintf(try.script, runs))
		cmd := u.command(t, "cloud/reader", "group", "list")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, within, name+" az runs", func() bool {
			_, err := os.Stat(runs)
			return err == nil
		})
		if err := cmd.Process.Signal(try.signal); err != nil {
			t.Fatal(err)
		}
		var ended *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &ended) || ended.ExitCode() != try.code {
			t.Errorf("%s: it ended with %v, not %d", name, err, try.code)
		}
		u.nothingLeft(t)
	}
}

// cloudTool is a program that scripts/install-cloud-tools.sh has brought, if it could.
func cloudTool(t *testing.T, name string) (path string, ok bool) {
	t.Helper()
	checkout, err := servertest.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(checkout, ".cache", "cloud-tools", name)
	_, err = os.Stat(path)
	return path, err == nil
}
