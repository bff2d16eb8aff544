package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
)

// awsSpare is how much life a credential that was kept must have left to be given once more.
const awsSpare = 5 * time.Minute

// awsCredentials is what the AWS CLI and the SDKs expect of a credential_process.
type awsCredentials struct {
	Version         int       `json:"Version"`
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"SessionToken,omitempty"`
	Expiration      time.Time `json:"Expiration"`
}

// keptAWS is a credential in a file. Of tells what it is a credential of, so that a file which two
// profiles name gives none of them the other's.
type keptAWS struct {
	awsCredentials
	Of string `json:"Of"`
}

func (a *app) awsCommand() *cobra.Command {
	return group("aws", "credentials for the AWS CLI and the SDKs", a.awsProcess())
}

func (a *app) awsProcess() *cobra.Command {
	var ttl, cache string
	cmd := a.local("credential-process ENGINE/ROLE", "print a credential as the AWS CLI's credential_process", 1,
		func(ctx context.Context, args []string) error {
			s, err := a.resolve()
			if err != nil {
				return err
			}
			c, err := a.connect(s)
			if err != nil {
				return err
			}
			of := strings.Join([]string{s.URL, s.Tenant, args[0]}, " ")
			credentials, kept := keptCredentials(cache, of)
			if !kept {
				if credentials, err = a.newCredentials(ctx, c, args[0], ttl); err != nil {
					return err
				}
				if err := keepCredentials(cache, of, credentials); err != nil {
					a.say("keep the credential: %v", err)
				}
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
	cmd.Flags().StringVar(&ttl, "ttl", "", "its life; the role's default when absent")
	cmd.Flags().StringVar(&cache, "cache", "", "keep it in this file until it is about to end")
	return a.complete(cmd, credNames)
}

func (a *app) newCredentials(ctx context.Context, c *client.Client, creds, ttl string) (awsCredentials, error) {
	engine, role, ok := strings.Cut(creds, "/")
	if !ok || engine == "" || role == "" || strings.Contains(role, "/") {
		return awsCredentials{}, invalid("credential-process: %q is not ENGINE/ROLE", creds)
	}
	asked, err := durationFlag("ttl", ttl)
	if err != nil {
		return awsCredentials{}, err
	}
	options := client.GenerateOptions{Metadata: map[string]string{"via": "scaivault aws credential-process"}}
	if asked != nil {
		options.TTL = asked.Std()
	}
	lease, err := c.Generate(ctx, engine, role, options)
	if err != nil {
		return awsCredentials{}, err
	}
	fields := lease.Data()
	if fields["access_key_id"] == "" {
		return awsCredentials{}, errors.Join(invalid("credential-process: %s gives no credentials of AWS", creds), lease.Close(ctx))
	}
	return awsCredentials{1, fields["access_key_id"], fields["secret_access_key"], fields["session_token"], lease.Expires().UTC().Truncate(time.Second)}, nil
}

// keptCredentials are those of a file, if they are of what is asked for and live long enough. What is wrong with the file is no
// obstacle: it is written anew.
func keptCredentials(file, of string) (c awsCredentials, ok bool) {
	if file == "" {
		return c, false
	}
	var kept keptAWS
	raw, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(raw, &kept) != nil {
		return c, false
	}
	c = kept.awsCredentials
	return c, kept.Of == of && c.Version == 1 && c.AccessKeyID != "" && time.Until(c.Expiration) > awsSpare
}

// keepCredentials writes the file whole or not at all, readable by its owner alone.
func keepCredentials(file, of string, c awsCredentials) error {
	if file == "" {
		return nil
	}
	next, err := os.CreateTemp(filepath.Dir(file), ".credentials-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // nothing is there once it was renamed
	err = json.NewEncoder(next).Encode(keptAWS{c, of})
	if err := errors.Join(err, next.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.Rename(next.Name(), file)
}
