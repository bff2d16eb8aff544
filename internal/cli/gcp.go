package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
)

// execCredential is what kubectl and its libraries expect of a credential plugin
// (https://kubernetes.io/docs/reference/config-api/client-authentication.v1/).
type execCredential struct {
	APIVersion string               `json:"apiVersion"`
	Kind       string               `json:"kind"`
	Status     execCredentialStatus `json:"status"`
}

type execCredentialStatus struct {
	ExpirationTimestamp time.Time `json:"expirationTimestamp"`
	Token               string    `json:"token"`
}

func (a *app) gcpCommand() *cobra.Command {
	return group("gcp", "credentials for kubectl on Google Cloud", a.gcpExecCredential())
}

func (a *app) gcpExecCredential() *cobra.Command {
	var o keptOptions
	cmd := a.local("exec-credential ENGINE/ROLE", "print an access token as kubectl wants it of a credential plugin", 1,
		func(ctx context.Context, args []string) error {
			o.creds, o.form = args[0], "gcp exec-credential"
			status, err := kept(ctx, a, o, tokenStatusOf)
			if err != nil {
				return err
			}
			return json.NewEncoder(a.Out).Encode(execCredential{a.execVersion(), "ExecCredential", status})
		})
	cmd.Long = `Print a new access token of Google Cloud as an ExecCredential, which kubectl and its
libraries want of a credential plugin. GKE takes it as it takes gcloud's. In the
kubeconfig, in the place of gke-gcloud-auth-plugin:

  users:
  - name: gke
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: scaivault
        args: [gcp, exec-credential, cloud/deploy]
        interactiveMode: Never

The role is one for access tokens (credential_type access_token). kubectl asks at each
of its runs, which makes a token each time: with --cache it is kept in a file that only
you can read, until it has less than five minutes to live. Without, nothing is written.
A token lives to its end.`
	o.addTo(cmd)
	return a.complete(cmd, credNames)
}

func tokenStatusOf(lease *client.Lease) (execCredentialStatus, error) {
	fields := lease.Data()
	if fields["service_account_email"] == "" || fields["access_token"] == "" {
		return execCredentialStatus{}, invalid("exec-credential: %s/%s gives no access tokens of Google Cloud", lease.Engine, lease.Role)
	}
	return execCredentialStatus{lease.Expires().UTC().Truncate(time.Second), fields["access_token"]}, nil
}

// execVersion is the version that who runs the plugin wants, and takes no other than.
func (a *app) execVersion() string {
	const v1, beta = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"
	var info struct {
		APIVersion string `json:"apiVersion"`
	}
	if json.Unmarshal([]byte(a.env("KUBERNETES_EXEC_INFO")), &info) == nil && info.APIVersion == beta {
		return beta
	}
	return v1
}
