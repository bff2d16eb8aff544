package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	// azSubscriptionTime is how long a subscription is waited for: a role that was assigned just now is not
	// known everywhere at Azure (https://learn.microsoft.com/azure/role-based-access-control/troubleshooting).
	azSubscriptionTime = 2 * time.Minute
	// azPause is the time between two looks.
	azPause = 3 * time.Second
)

// azLogin is a login of the Azure CLI in a folder that only its user can enter. What is in there of a process
// that is killed is of use until the credential ends.
type azLogin struct {
	app     *app
	az      string // the program
	folder  string
	environ []string

	clientID, tenantID, secret string
}

func (a *app) newAzLogin(az string, lease *client.Lease) (*azLogin, error) {
	fields := lease.Data()
	l := &azLogin{app: a, az: az, clientID: fields["client_id"], tenantID: fields["tenant_id"], secret: fields["client_secret"]}
	if l.clientID == "" || l.tenantID == "" || l.secret == "" {
		return nil, invalid("az: %s/%s gives no credentials of Azure", lease.Engine, lease.Role)
	}
	folder, err := os.MkdirTemp("", "scaivault-az-") // made with 0700, and by us alone
	if err != nil {
		return nil, fmt.Errorf("make a folder for az: %w", err)
	}
	l.folder = folder
	if err := l.bringSettings(); err != nil {
		l.close()
		return nil, fmt.Errorf("bring your settings of az: %w", err)
	}
	// Nothing may outlive the folder: a keyring that the secret is kept in, or the process that sends Microsoft
	// what az tells of its use, and writes there (https://learn.microsoft.com/cli/azure/azure-cli-configuration).
	l.environ = append(a.childEnviron(), "AZURE_CONFIG_DIR="+folder, "AZURE_CORE_ENCRYPT_TOKEN_CACHE=no", "AZURE_CORE_COLLECT_TELEMETRY=no")
	return l, nil
}

// bringSettings makes hold what the user has set, and lets his extensions be found; his logins stay where they
// are. Only what az changes when it logs in is copied.
func (l *azLogin) bringSettings() error {
	own := l.app.env("AZURE_CONFIG_DIR")
	switch home := l.app.env("HOME"); {
	case own != "":
	case home == "": // and not the working folder: settings decide to whom the secret is sent
		return nil
	default:
		own = filepath.Join(home, ".azure")
	}
	for _, name := range []string{"config", "clouds.config"} {
		settings, err := os.ReadFile(filepath.Join(own, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(l.folder, name), settings, 0o600) //nolint:gosec // names of ours, in a folder of ours
		}
		if err != nil {
			return err
		}
	}
	extensions, err := filepath.Abs(filepath.Join(own, "cliextensions"))
	if err != nil {
		return err
	}
	return os.Symlink(extensions, filepath.Join(l.folder, "cliextensions")) // also to what is not there
}

// untilUsable logs az in, and again until it sees a subscription if that is wanted.
func (l *azLogin) untilUsable(signals <-chan os.Signal, subscription bool) error {
	for started := time.Now(); ; {
		seen, err := l.run(signals)
		if err != nil || seen || !subscription {
			return err
		}
		if time.Since(started) > azSubscriptionTime {
			return errors.New("log in with az: no subscription is shown to the credential; does its role give any? Without one: --allow-no-subscriptions")
		}
		l.app.say("Azure shows the credential no subscription yet; looking again")
		select {
		case s := <-signals:
			return &childExit{code: signalCode(s)}
		case <-time.After(azPause):
		}
	}
}

// run logs az in and answers whether it sees a subscription. az replaces @- by what it reads from its standard
// input, so that the secret is in no list of processes; joined with =, for a secret may begin with a hyphen
// (https://github.com/MicrosoftDocs/azure-docs-cli/issues/4488). It would write what it has read to a log that the
// user has set.
func (l *azLogin) run(signals <-chan os.Signal) (subscription bool, err error) {
	var out, said bytes.Buffer
	err = l.app.attend(signals, &exec.Cmd{
		Path: l.az, Env: append(slices.Clone(l.environ), "AZURE_LOGGING_ENABLE_LOG_FILE=no"), Stdin: strings.NewReader(l.secret), Stdout: &out, Stderr: &said,
		Args: []string{
			"az", "login", "--service-principal", "--username", l.clientID, "--tenant", l.tenantID, "--password=@-",
			"--allow-no-subscriptions", "--only-show-errors", "--output", "json",
		},
	})
	if err != nil {
		l.app.say("log in with az: %s", first(strings.TrimSpace(statement.Redact(said.String(), []string{l.secret}, 1)), "it failed and says nothing"))
		return false, err
	}
	var accounts []struct {
		ID       string `json:"id"`
		TenantID string `json:"tenantId"`
	}
	if err := json.Unmarshal(out.Bytes(), &accounts); err != nil {
		return false, errors.New("log in with az: its answer is no list of subscriptions")
	}
	for _, one := range accounts {
		if one.ID != one.TenantID { // that is the tenant itself, for who has no subscription
			return true, nil
		}
	}
	return false, nil
}

// close leaves nothing behind.
func (l *azLogin) close() {
	if err := os.RemoveAll(l.folder); err != nil {
		l.app.say("remove the login of az: %v; remove %s", err, l.folder)
	}
}
