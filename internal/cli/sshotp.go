package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

const (
	// longestPassword is what PAM hands on at most (PAM_MAX_RESP_SIZE).
	longestPassword = 512
	longestToken    = 4096
	// longestVerify is as long as a login may wait for an answer: sshd itself gives up after 2 minutes.
	longestVerify = time.Minute
)

// verifyOptions are the flags of verify-otp.
type verifyOptions struct {
	engine, tokenFile, address, timeout string
}

func (a *app) sshHostVerify() *cobra.Command {
	var o verifyOptions
	cmd := a.local("verify-otp --url URL --engine ENGINE --token-file FILE", "tell PAM whether a one-time password lets in", 0,
		func(ctx context.Context, _ []string) error {
			if err := a.verifyPassword(ctx, o); err != nil {
				a.logLogin("refused", err)
				return &childExit{code: exitGeneral}
			}
			a.logLogin("accepted", nil)
			return nil
		})
	cmd.Long = `Ask the server whether the password that somebody logs in with is a one-time password
for this account on this host. It is run by pam_exec with expose_authtok, which gives it
the password on standard input, and ends with 0 if the password is right and with another
code in every other case. It is right once.

The address of the host is the one that the login came to (sshd gives it to PAM in
SSH_CONNECTION); where clients know the host by another one, --address says which.
Address of the server, engine and token come from the flags alone, never from the
environment. The token's file holds a token, or the JSON that "scaivault auth
service-accounts create --json" has printed; it must belong to root and be readable by
nobody else.

What happened is logged to syslog (authpriv), or to standard error where there is none;
the person who logs in is not told.`
	cmd.Example = `  auth requisite pam_exec.so expose_authtok quiet /usr/local/bin/scaivault ssh-host verify-otp \
      --url https://vault.internal --engine otp --token-file /etc/scaivault/host.json`
	flags := cmd.Flags()
	flags.StringVar(&o.engine, "engine", "", "the engine")
	flags.StringVar(&o.tokenFile, "token-file", "", "file with what this host logs in with")
	flags.StringVar(&o.address, "address", "", "IP address of this host, as credentials are made for it")
	flags.StringVar(&o.timeout, "timeout", "10s", "how long a login may wait for the server; at most 1m")
	return cmd
}

// verifyPassword answers nil for the right password only. Its errors are for the log, and hold nothing
// secret.
func (a *app) verifyPassword(ctx context.Context, o verifyOptions) error {
	limit, err := durationFlag("timeout", o.timeout)
	switch {
	case err != nil:
		return err
	case limit == nil || limit.Std() > longestVerify:
		return errors.New("--timeout is 1m at most")
	case o.engine == "" || o.tokenFile == "":
		return errors.New("--engine and --token-file are needed")
	case a.env("PAM_TYPE") != "auth":
		return errors.New("it is not run by pam_exec in an auth line")
	}
	ctx, cancel := context.WithTimeout(ctx, limit.Std())
	defer cancel()
	address, err := a.hostAddress(o.address)
	if err != nil {
		return err
	}
	login, err := readLogin(o.tokenFile)
	if err != nil {
		return err
	}
	login.URL, login.Tenant = a.settings.URL, a.settings.Tenant
	c, err := a.hostClient(login)
	if err != nil {
		return err
	}
	password, err := a.readPassword(ctx)
	if err != nil {
		return err
	}
	return verifyOnce(ctx, c, o.engine, api.SSHVerifyRequest{OTP: password, Username: a.env("PAM_USER"), IP: address, ClientIP: a.clientAddress()})
}

// verifyOnce asks, and takes only the answer to what was asked for a yes.
func verifyOnce(ctx context.Context, c *client.Client, engine string, r api.SSHVerifyRequest) error {
	if r.Username == "" {
		return errors.New("PAM names no user")
	}
	answer, err := c.VerifySSHPassword(ctx, engine, r)
	if err != nil {
		return err
	}
	if !answer.Valid || answer.Username != r.Username {
		return errors.New("the server did not say that it is right")
	}
	return nil
}

// clientAddress is where the login comes from. sshd may have looked up a name (UseDNS), which proves
// nothing: then it is empty, and a password that is bound to an address is refused.
func (a *app) clientAddress() string {
	address, err := netip.ParseAddr(a.env("PAM_RHOST"))
	if err != nil {
		return ""
	}
	return address.Unmap().WithZone("").String()
}

// hostAddress is the address that the login came to: what is given, else the third word of
// SSH_CONNECTION, "client port server port".
func (a *app) hostAddress(given string) (string, error) {
	if given == "" {
		words := strings.Fields(a.env("SSH_CONNECTION"))
		if len(words) != 4 {
			return "", errors.New("sshd does not say which address the login came to; --address does")
		}
		given = words[2]
	}
	address, err := netip.ParseAddr(given)
	if err != nil {
		return "", errors.New("the address of this host is none")
	}
	return address.Unmap().WithZone("").String(), nil
}

// readLogin reads what a host logs in with: the JSON of a service account, or a token. The file belongs
// to root, or to who runs this, and nobody else can read it.
func readLogin(path string) (login settings, err error) {
	f, err := os.Open(path)
	if err != nil {
		return login, fmt.Errorf("read the token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return login, fmt.Errorf("read the token: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || owner.Uid != 0 && int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return login, fmt.Errorf("read the token: %s must belong to root and be readable by nobody else: chown root, chmod 600", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, longestToken+1))
	if err != nil || len(data) > longestToken {
		return login, fmt.Errorf("read the token: %s cannot be read, or is larger than %d bytes", path, longestToken)
	}
	var account struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	text := strings.TrimSpace(string(data))
	switch {
	case json.Unmarshal(data, &account) == nil && account.ID != "" && account.Secret != "":
		return settings{ClientID: account.ID, ClientSecret: account.Secret}, nil
	case text == "" || strings.ContainsAny(text, " \t\r\n{"):
		return login, fmt.Errorf("read the token: %s holds neither a token nor the JSON of a service account", path)
	}
	return settings{Token: text}, nil
}

// readPassword reads what pam_exec writes: the password and a NUL.
func (a *app) readPassword(ctx context.Context) (string, error) {
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(a.In, longestPassword+2))
		read <- result{data, err}
	}()
	var r result
	select {
	case r = <-read:
	case <-ctx.Done():
		return "", errors.New("no password came in time")
	}
	password := bytes.TrimSuffix(r.data, []byte{0})
	switch {
	case r.err != nil:
		return "", errors.New("the password could not be read")
	case len(password) == 0:
		return "", errors.New("there is no password")
	case len(password) > longestPassword, !utf8.Valid(password), bytes.IndexByte(password, 0) >= 0:
		return "", errors.New("the password is none of ours")
	}
	return string(password), nil
}

// logLogin tells who looks after the host.
func (a *app) logLogin(outcome string, cause error) {
	line := fmt.Sprintf("%s a one-time password for %q from %q", outcome, limited(a.env("PAM_USER")), limited(a.env("PAM_RHOST")))
	if cause != nil {
		line += ": " + cause.Error()
	}
	line = printable(line)
	if log, err := syslog.New(syslog.LOG_AUTHPRIV|syslog.LOG_INFO, "scaivault"); err == nil {
		defer log.Close()
		if log.Info(line) == nil {
			return
		}
	}
	a.say("%s", line)
}

// limited keeps what a stranger chose from filling the log.
func limited(s string) string {
	const longest = 64
	if len(s) > longest {
		return s[:longest] + "..."
	}
	return s
}
