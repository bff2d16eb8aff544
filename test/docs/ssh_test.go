package docs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/sshtest"
)

// systemctl does on a host what the page has it do: reload makes sshd read its configuration, enable
// runs a unit of deploy/ once.
const systemctl = `#!/bin/sh -e
case $1 in
reload) kill -HUP 1 ;; # sshd is the first process of the host
enable)
	. /etc/scaivault/ssh-host
	for timer in $3 $4; do
		copy=${timer#scaivault-ssh-host@}
		eval "$(sed -n "s/%i/${copy%.timer}/g; s#/usr/local/bin#BIN#; s/^ExecStart=//p" 'DEPLOY')"
	done ;;
esac
`

// The guide to SSH works as it stands, on the side of the administrator (sh), on a host (bash, pam,
// sshd) and for who logs in.
func TestSSHGuide(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	const guide = "../../docs/engines/ssh.md"
	all, count := blocks(t, guide)
	if count["sh"] != 7 || count["bash"] != 2 || count["pam"] != 1 || count["sshd"] != 1 || len(all) != 11 {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	v := &vault{bin: build(t)}
	v.startServer(t)
	page := newSSHPage(t, v, all)
	deployer := v.serviceAccount(t, "deployer", "dynamic:generate")

	for _, b := range all {
		switch {
		case b.language == "bash":
			page.runOnHost(t, b.text)
		case b.language != "sh":
		case strings.Contains(b.text, "scaivault ssh "):
			if out := page.run(t, deployer.token, b.text); out != sshtest.User+"\n" {
				t.Errorf("the login printed %q", out)
			}
		case strings.Contains(b.text, "ssh-keygen"):
			if out := page.run(t, deployer.token, b.text); !strings.Contains(out, "lease_") || !strings.Contains(out, deployer.identity) {
				t.Errorf("the certificate's key id leads to nobody: %s", out)
			}
		case strings.Contains(b.text, "rotate-root"):
			page.mustLogIn(t)
			page.run(t, v.adminToken, b.text)
			page.runOnHost(t, timers)
			page.mustLogIn(t)
			page.mustEndAfterRevocation(t)
		case strings.Contains(b.text, "creds otp web"):
			page.mustOpenOnce(t, page.run(t, v.adminToken, b.text))
		default:
			page.run(t, v.adminToken, b.text)
		}
	}
}

const timers = "systemctl enable --now scaivault-ssh-host@ca.timer scaivault-ssh-host@krl.timer"

// sshPage is what the page takes for granted.
type sshPage struct {
	v     *vault
	host  *sshtest.Host
	dir   string // in which blocks are run
	tools string // of the host
	real  *strings.Replacer
}

// newSSHPage makes the host as the page says, but for what its blocks do.
func newSSHPage(t *testing.T, v *vault, all []block) *sshPage {
	t.Helper()
	p := &sshPage{v: v, dir: t.TempDir(), tools: t.TempDir()}
	p.real = strings.NewReplacer("https://vault.internal", v.url, "/usr/local/bin/", v.bin+"/", "10.0.0.0/8", "127.0.0.0/8", "10.0.0.7", "127.0.0.1")
	lines := map[string][]string{}
	for _, b := range all {
		lines[b.language] = append(lines[b.language], strings.Split(strings.TrimSpace(p.real.Replace(b.text)), "\n")...)
	}
	p.host = sshtest.Start(t, sshtest.WithLines(lines["sshd"]...),
		sshtest.WithPAM(append(logged(lines["pam"]), "account required pam_permit.so", "session required pam_permit.so")...))
	p.real = strings.NewReplacer("https://vault.internal", v.url, "10.0.0.0/8", "127.0.0.0/8", "10.0.0.7", "127.0.0.1",
		"deploy@web1.internal", "deploy@127.0.0.1 "+strings.Join(p.host.ClientOptions(), " "))

	unit, err := filepath.Abs("../../deploy/scaivault-ssh-host@.service")
	must(t, err)
	text := strings.NewReplacer("BIN", v.bin, "DEPLOY", unit).Replace(systemctl)
	must(t, os.WriteFile(filepath.Join(p.tools, "systemctl"), []byte(text), 0o755))
	sshd, err := exec.LookPath(sshtest.Command(t, "sshd").Path)
	must(t, err)
	must(t, os.Symlink(sshd, filepath.Join(p.tools, "sshd")))
	return p
}

// logged has the helper write to a file, and wait as long as a busy machine may take.
func logged(pam []string) []string {
	return strings.Split(strings.NewReplacer(" quiet ", " quiet log=/etc/ssh/verify.log ", " verify-otp ", " verify-otp --timeout 60s ").Replace(strings.Join(pam, "\n")), "\n")
}

func (p *sshPage) environ(token string) []string {
	return append(sshtest.Environ(), "PATH="+p.v.bin+":"+p.tools+":"+path(sshtest.Environ()), "HOME="+p.dir, "SCAIVAULT_URL="+p.v.url, "SCAIVAULT_TOKEN="+token)
}

func path(environ []string) string {
	for _, variable := range environ {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			return value
		}
	}
	return ""
}

// run runs a block as the bearer of a token and answers what it printed.
func (p *sshPage) run(t *testing.T, token, text string) string {
	t.Helper()
	cmd := exec.Command("sh", "-e", write(t, p.dir, "block.sh", p.real.Replace(text)))
	cmd.Dir, cmd.Env, cmd.WaitDelay = p.dir, p.environ(token), time.Minute
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v:\n%s%s\nsshd says %s", err, out, &complaints, p.host.Log(t))
	}
	return string(out)
}

// runOnHost runs a block as root of the host, who has no token.
func (p *sshPage) runOnHost(t *testing.T, text string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-e", write(t, p.dir, "block.sh", p.real.Replace(text)))
	cmd.Env = p.environ("")
	if out, err := p.host.Enter(cmd).CombinedOutput(); err != nil {
		t.Fatalf("on the host: %v:\n%s", err, out)
	}
}

// mustLogIn logs in with the certificate that the page has somebody ask for.
func (p *sshPage) mustLogIn(t *testing.T) {
	t.Helper()
	if out, err := p.host.Login(t, filepath.Join(p.dir, "id_ed25519"), sshtest.User, "id -un"); err != nil || out != sshtest.User+"\n" {
		t.Errorf("the certificate: %q, %v; sshd says %s", out, err, p.host.Log(t))
	}
}

// mustEndAfterRevocation revokes all certificates and has the timers run.
func (p *sshPage) mustEndAfterRevocation(t *testing.T) {
	t.Helper()
	_, err := p.v.admin.RevokePrefix(t.Context(), "servers", time.Second)
	must(t, err)
	p.v.eventually(t, "the list has them", func() bool { // it is made once a second
		p.runOnHost(t, timers)
		_, err := p.host.Login(t, filepath.Join(p.dir, "id_ed25519"), sshtest.User, "id -un")
		return err != nil && strings.Contains(p.host.Log(t), "revoked by file")
	})
}

// mustOpenOnce logs in with the password that was printed. The host has what it logs in with, as the page says.
func (p *sshPage) mustOpenOnce(t *testing.T, printed string) {
	t.Helper()
	login, err := os.ReadFile(filepath.Join(p.dir, "host.json"))
	must(t, err)
	must(t, os.WriteFile(p.host.Path("../scaivault/host.json"), login, 0o600))
	_, rest, _ := strings.Cut(printed, "otp")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		t.Fatalf("no password was printed: %s", printed)
	}
	if out, err := p.host.LoginPassword(t, fields[0], sshtest.User, "id -un"); err != nil || out != sshtest.User+"\n" {
		said, _ := os.ReadFile(p.host.Path("verify.log"))
		t.Errorf("the password: %q, %v; the helper says %s; sshd says %s", out, err, said, p.host.Log(t))
	}
	if _, err := p.host.LoginPassword(t, fields[0], sshtest.User, "id -un"); err == nil {
		t.Error("the password lets in twice")
	}
}

// serviceAccount makes a service account without any policy.
func (v *vault) serviceAccount(t *testing.T, name, scope string) identity {
	t.Helper()
	account, err := v.admin.CreateServiceAccount(t.Context(), api.ServiceAccountRequest{Name: name, Scopes: []string{scope}})
	must(t, err)
	who, err := client.New(client.Config{URL: v.url, ClientID: account.ClientID, ClientSecret: account.ClientSecret})
	must(t, err)
	token, err := who.CreateToken(t.Context(), api.TokenRequest{Name: name, Scopes: []string{scope}})
	must(t, err)
	return identity{account.IdentityID, account.ClientID, account.ClientSecret, token.Token}
}
