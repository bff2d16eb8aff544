package cli

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
)

// sshTTL is for how long a certificate lets in: long enough for a person to answer what a login asks.
// A session that is open then goes on.
const sshTTL = 5 * time.Minute

func (a *app) sshCommand() *cobra.Command {
	var ttl string
	cmd := a.local("ssh ENGINE/ROLE USER@HOST [ARGUMENT...]", "log in to a host with a certificate of its own", -1,
		func(ctx context.Context, args []string) error {
			if len(args) < 2 {
				return invalid("ssh: write: scaivault ssh ENGINE/ROLE USER@HOST")
			}
			if strings.HasPrefix(args[1], "-") {
				return invalid("ssh: %q is no destination; what is for ssh itself stands behind it", args[1])
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.ssh(ctx, c, args[0], ttl, args[1], args[2:])
		})
	cmd.Long = `Make a key, have it signed for this login, run ssh with the certificate, and revoke
that when ssh has ended, or when it is told to end. ssh's exit code is passed on, and
signals are passed to it.

The private key is in the memory of this command alone, which serves it to ssh as an
agent. What else your own agent and configuration hold is tried after it. With -A ssh
forwards the agent of this command; yours is forwarded by -o ForwardAgent=$SSH_AUTH_SOCK.

Without USER@ you log in as the user that the role names. The certificate is good for
5 minutes, or for --ttl; a session that is open then goes on. The arguments behind the
destination are for ssh: options first, then a command.`
	cmd.Example = `  scaivault ssh servers/deploy deploy@web1.internal
  scaivault ssh servers/deploy deploy@web1.internal -p 2222 systemctl status nginx`
	cmd.Flags().StringVar(&ttl, "ttl", "", "for how long the certificate lets in; 5m when absent")
	cmd.Flags().SetInterspersed(false) // what follows the destination is ssh's
	return a.complete(cmd, credNames)
}

// ssh is the life of one login: key, certificate, ssh, revocation. From its first line on no signal
// that can be caught ends the process before the certificate is given back.
func (a *app) ssh(ctx context.Context, c *client.Client, creds, ttl, destination string, args []string) error {
	signals, release := catchSignals()
	defer release()

	path, err := a.find("ssh")
	if err != nil {
		return err
	}
	key, err := a.newSSHKey()
	if err != nil {
		return err
	}
	defer key.close()
	params := map[string]any{"public_key": key.public}
	if user := loginName(destination); user != "" {
		params["username"] = user
	}
	lease, err := obtain(ctx, c, creds, ttl, client.GenerateOptions{
		TTL: sshTTL, Params: params, Metadata: map[string]string{"via": "scaivault ssh"},
	})
	if err != nil {
		return err
	}
	defer a.giveBack(lease)

	principals, err := key.certify(lease.Data()["signed_key"])
	if err != nil {
		return err
	}
	options := key.options()
	if params["username"] == nil && len(principals) > 0 {
		options = append(options, "-l", principals[0])
	}
	return a.attend(signals, a.child(path, slices.Concat([]string{"ssh"}, options, []string{destination}, args), a.childEnviron()))
}

// loginName is the user of a destination, as ssh reads it: [user@]host or ssh://[user@]host[:port].
func loginName(destination string) string {
	if rest, ok := strings.CutPrefix(destination, "ssh://"); ok {
		if u, err := url.Parse("ssh://" + rest); err == nil {
			return u.User.Username()
		}
		return ""
	}
	if at := strings.LastIndexByte(destination, '@'); at >= 0 {
		return destination[:at]
	}
	return ""
}
