package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/krl"
)

// hostTime bounds one question of a host to the server.
const hostTime = time.Minute

func (a *app) sshHostCommand() *cobra.Command {
	return group("ssh-host", "what a host does that trusts an ssh engine", a.sshHostCA(), a.sshHostKRL(), a.sshHostVerify())
}

// hostCopy is a file of sshd that is a copy of what the server publishes.
type hostCopy struct {
	engine, file, maxAge string

	fetch func(c *client.Client, ctx context.Context, engine string, held []byte) ([]byte, error)
	// check refuses what sshd must not find in the file, and says what it will find.
	check func(data []byte) (what string, err error)
}

func (a *app) sshHostCA() *cobra.Command {
	o := hostCopy{fetch: (*client.Client).SSHPublicKey, check: checkCA}
	cmd := a.copyCommand(&o, "ca --url URL --engine ENGINE --file FILE", "keep a copy of the keys of an engine's CA")
	cmd.Long = `Bring a copy of the public keys that an ssh engine signs with up to date, for sshd's
TrustedUserCAKeys. While the engine's key is being replaced both are in it.` + copyHelp
	cmd.Example = `  scaivault ssh-host ca --url https://vault.internal --engine servers --file /etc/ssh/scaivault_ca`
	return cmd
}

func (a *app) sshHostKRL() *cobra.Command {
	o := hostCopy{fetch: (*client.Client).SSHRevokedKeys, check: checkKRL}
	cmd := a.copyCommand(&o, "krl --url URL --engine ENGINE --file FILE [--max-age 10m]", "keep a copy of what an engine has revoked")
	cmd.Long = `Bring a copy of the list of an ssh engine's revoked certificates up to date, for sshd's
RevokedKeys.` + copyHelp
	cmd.Example = `  scaivault ssh-host krl --url https://vault.internal --engine servers --file /etc/ssh/scaivault_krl --max-age 10m`
	return cmd
}

const copyHelp = ` It needs no token. What is not whole and well-formed does not come
into the file, which is replaced in one piece; sshd reads it at each login. When
anything fails the file stays as it is, and the exit code says so; with --max-age it is
also said when the file was last known to be current longer ago than that. The time
of the file is when it was.`

func (a *app) copyCommand(o *hostCopy, use, short string) *cobra.Command {
	cmd := a.local(use, short, 0, func(ctx context.Context, _ []string) error { return a.keepCopy(ctx, *o) })
	cmd.Flags().StringVar(&o.engine, "engine", "", "the engine")
	cmd.Flags().StringVar(&o.file, "file", "", "the file to keep")
	cmd.Flags().StringVar(&o.maxAge, "max-age", "", "warn when the file cannot be brought up to date and was current longer ago than this")
	return cmd
}

// keepCopy replaces the file if there is something newer. Whatever fails, the file is as it was.
func (a *app) keepCopy(ctx context.Context, o hostCopy) error {
	if o.engine == "" || o.file == "" {
		return invalid("keep the copy: write --url URL --engine ENGINE --file FILE")
	}
	maxAge, err := durationFlag("max-age", o.maxAge)
	if err != nil {
		return err
	}
	err = a.refreshCopy(ctx, o)
	if info, statErr := os.Stat(o.file); err != nil && maxAge != nil && statErr == nil {
		if age := time.Since(info.ModTime()); age > maxAge.Std() {
			a.say("warning: %s was last known to be current %s ago, at %s", o.file, age.Round(time.Second), text(info.ModTime()))
		}
	}
	return err
}

func (a *app) refreshCopy(ctx context.Context, o hostCopy) error {
	c, err := a.hostClient(settings{URL: first(a.settings.URL, a.env("SCAIVAULT_URL")), Tenant: a.settings.Tenant})
	if err != nil {
		return err
	}
	held, err := os.ReadFile(o.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the copy: %w", err)
	}
	if _, err := o.check(held); err != nil {
		held = nil // whatever it is, it is replaced
	}
	ctx, cancel := context.WithTimeout(ctx, hostTime)
	defer cancel()
	data, err := o.fetch(c, ctx, o.engine, held)
	if err != nil {
		return err
	}
	if data == nil || held != nil && bytes.Equal(data, held) {
		now := time.Now()
		return os.Chtimes(o.file, now, now)
	}
	what, err := o.check(data)
	if err != nil {
		return err
	}
	if err := folder.Publish(o.file, data); err != nil {
		return fmt.Errorf("write the copy: %w", err)
	}
	a.say("%s: %s", o.file, what)
	return nil
}

// hostClient makes a client that nobody between can answer for: what it is told decides who may log in.
func (a *app) hostClient(s settings) (*client.Client, error) {
	c, err := a.connect(s)
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(c.URL()); err != nil || u.Scheme != "https" && !net.ParseIP(u.Hostname()).IsLoopback() {
		return nil, invalid("reach the server: %s is not https, and not an address of this machine; who can answer in its place could log in to this host", c.URL())
	}
	return c, nil
}

// checkCA wants public keys alone, and at least one: sshd trusts who is in the file.
func checkCA(data []byte) (string, error) {
	keys := 0
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey(line)
		if _, certificate := key.(*ssh.Certificate); err != nil || certificate || len(options) > 0 {
			return "", errors.New("read the keys of the CA: what was answered is no list of public keys; the copy stays as it is")
		}
		keys++
	}
	if keys == 0 {
		return "", errors.New("read the keys of the CA: there are none in what was answered; the copy stays as it is")
	}
	return fmt.Sprintf("%d trusted", keys), nil
}

// checkKRL wants a whole list. Its version says nothing of its age: what has ended leaves the list.
func checkKRL(data []byte) (string, error) {
	list, err := krl.Read(data)
	if err != nil {
		return "", fmt.Errorf("%w; the copy stays as it is", err)
	}
	return fmt.Sprintf("version %d of %s", list.Version, text(list.Generated)), nil
}
