package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
)

// awsCredentials is what the AWS CLI and the SDKs expect of a credential_process.
type awsCredentials struct {
	Version         int       `json:"Version"`
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"SessionToken,omitempty"`
	Expiration      time.Time `json:"Expiration"`
}

func (a *app) awsCommand() *cobra.Command {
	return group("aws", "credentials for the AWS CLI and the SDKs", a.awsProcess())
}

func (a *app) awsProcess() *cobra.Command {
	var o keptOptions
	cmd := a.local("credential-process ENGINE/ROLE", "print a credential as the AWS CLI's credential_process", 1,
		func(ctx context.Context, args []string) error {
			o.creds, o.form = args[0], "aws credential-process"
			credentials, err := kept(ctx, a, o, awsCredentialsOf)
			if err != nil {
				return err
			}
			return json.NewEncoder(a.Out).Encode(credentials) //nolint:gosec // to print it is what the command is for
		})
	cmd.Long = `Print a new credential in the form that the AWS CLI and the SDKs want of a
credential_process. In ~/.aws/config:

  [profile deploy]
  credential_process = scaivault aws credential-process cloud/deploy

SDKs ask again when it is about to end. The AWS CLI asks at each of its runs, which
makes a credential each time: with --cache it is kept in a file that only you can
read, until it has less than five minutes to live. Without, nothing is written. A
credential lives to its end: revoke it sooner with scaivault dynamic leases revoke.`
	o.addTo(cmd)
	return a.complete(cmd, credNames)
}

func awsCredentialsOf(lease *client.Lease) (awsCredentials, error) {
	fields := lease.Data()
	if fields["access_key_id"] == "" {
		return awsCredentials{}, invalid("credential-process: %s/%s gives no credentials of AWS", lease.Engine, lease.Role)
	}
	return awsCredentials{1, fields["access_key_id"], fields["secret_access_key"], fields["session_token"], lease.Expires().UTC().Truncate(time.Second)}, nil
}
