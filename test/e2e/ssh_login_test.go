package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/engine"
	sshengine "github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/test/sshtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// within is how long a busy machine may take for what takes a moment.
const within = 2 * time.Minute

// trusting makes sshd trust the CA that ssh-host ca and ssh-host krl keep copies of.
var trusting = sshtest.WithLines("TrustedUserCAKeys /etc/ssh/scaivault_ca", "RevokedKeys /etc/ssh/scaivault_krl")

// deploy is a role for certificates of the user of every host.
func deploy(more client.Document) client.Document {
	role := client.Document{"name": "deploy", "allowed_users": []string{sshtest.User}, "extensions": map[string]string{"permit-pty": ""}}
	for name, value := range more {
		role[name] = value
	}
	return role
}

// signed is a new key with a certificate beside it.
func (v *vault) signed(t *testing.T, engine, role string, ttl time.Duration) (key string, lease *client.Lease) {
	t.Helper()
	key = sshtest.NewKey(t)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	lease, err = v.admin.Generate(t.Context(), engine, role, client.GenerateOptions{TTL: ttl, Params: map[string]any{"public_key": string(public)}})
	if err != nil {
		t.Fatalf("have a key signed: %v", err)
	}
	if err := os.WriteFile(key+"-cert.pub", []byte(lease.Data()["signed_key"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return key, lease
}

// run runs the program as somebody with the administrator's token and nothing else of this process.
func (v *vault) run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := v.command(t, args...)
	text, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("%v: %v", args, err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func (v *vault) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(vaulttest.Program(t), args...)
	cmd.Env = append(sshtest.Environ(), "SCAIVAULT_URL="+v.URL, "SCAIVAULT_TOKEN="+v.Token())
	return cmd
}

// refresh brings a host's copies up to date.
func (v *vault) refresh(t *testing.T, h *sshtest.Host, engine string) {
	t.Helper()
	for what, file := range map[string]string{"ca": "scaivault_ca", "krl": "scaivault_krl"} {
		if out, code := v.run(t, "ssh-host", what, "--url", v.URL, "--engine", engine, "--file", h.Path(file)); code != 0 {
			t.Fatalf("ssh-host %s ended with %d: %s", what, code, out)
		}
	}
}

func mustLogIn(t *testing.T, what string, h *sshtest.Host, key string) {
	t.Helper()
	if out, err := h.Login(t, key, sshtest.User, "id -un"); err != nil || out != sshtest.User+"\n" {
		t.Errorf("%s: %q, %v; sshd says %s", what, out, err, h.Log(t))
	}
}

func mustNotLogIn(t *testing.T, what string, h *sshtest.Host, key, user string) {
	t.Helper()
	if out, err := h.Login(t, key, user, "id -un"); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("%s: %q, %v; sshd says %s", what, out, err, h.Log(t))
	}
}

// sshd lets in whom a certificate names, with the key that it names, until it is revoked or over; and
// goes on to do so while the server is down.
func TestSSHLogin(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	v, h := newVault(t), sshtest.Start(t, trusting)
	v.sshEngine(t, "servers", map[string]any{"krl_max_age": "1s"}, deploy(nil),
		deploy(client.Document{"name": "forced", "critical_options": map[string]string{"force-command": "echo forced"}}),
		deploy(client.Document{"name": "near", "critical_options": map[string]string{"source-address": "127.0.0.0/8"}}),
		deploy(client.Document{"name": "far", "critical_options": map[string]string{"source-address": "192.0.2.0/24"}}))
	v.refresh(t, h, "servers")

	key, lease := v.signed(t, "servers", "deploy", time.Hour)
	other, _ := v.signed(t, "servers", "deploy", time.Hour)
	mustLogIn(t, "a certificate", h, key)
	mustNotLogIn(t, "another principal", h, key, sshtest.Other)
	stranger := sshtest.NewKey(t)
	mustNotLogIn(t, "a key alone", h, stranger, sshtest.User)
	stolen, err := os.ReadFile(key + "-cert.pub")
	if err == nil {
		err = os.WriteFile(stranger+"-cert.pub", stolen, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	mustNotLogIn(t, "a certificate without its key", h, stranger, sshtest.User)

	forced, _ := v.signed(t, "servers", "forced", time.Hour)
	if out, err := h.Login(t, forced, sshtest.User, "id -un"); err != nil || out != "forced\n" {
		t.Errorf("force-command: %q, %v", out, err)
	}
	near, _ := v.signed(t, "servers", "near", time.Hour)
	mustLogIn(t, "from where it is good", h, near)
	far, _ := v.signed(t, "servers", "far", time.Hour)
	mustNotLogIn(t, "from elsewhere", h, far, sshtest.User)

	short, _ := v.signed(t, "servers", "deploy", 5*time.Second)
	eventually(t, within, "a certificate is over", func() bool {
		_, err := h.Login(t, short, sshtest.User, "id -un")
		return err != nil && strings.Contains(h.Log(t), "Certificate invalid: expired")
	})

	pending, err := v.admin.RevokeLease(t.Context(), lease.ID, 0)
	if err != nil || pending == nil || pending.Revocation.EffectiveAt == nil {
		t.Fatalf("the revocation of what is checked against a list came to %+v, %v", pending, err)
	}
	v.refresh(t, h, "servers")
	mustNotLogIn(t, "a revoked certificate", h, key, sshtest.User)
	if log := h.Log(t); !strings.Contains(log, "revoked by file") {
		t.Errorf("sshd says %s", log)
	}
	mustLogIn(t, "another certificate", h, other)

	before, err := os.ReadFile(h.Path("scaivault_krl"))
	if err != nil {
		t.Fatal(err)
	}
	v.Stop(t)
	if out, code := v.run(t, "ssh-host", "krl", "--url", v.URL, "--engine", "servers", "--file", h.Path("scaivault_krl"), "--max-age", "1h"); code == 0 || strings.Contains(out, "warning") {
		t.Errorf("without the server ssh-host krl ended with %d: %s", code, out)
	}
	if after, err := os.ReadFile(h.Path("scaivault_krl")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("without the server the copy was changed: %v", err)
	}
	mustLogIn(t, "a certificate while the server is down", h, other)
	mustNotLogIn(t, "a revoked certificate while the server is down", h, key, sshtest.User)
}

// What a host holds is what the server has: it answers that nothing is new, and is believed.
func TestSSHHostCopies(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.sshEngine(t, "servers", map[string]any{}, deploy(nil))
	_, lease := v.signed(t, "servers", "deploy", time.Hour)
	if _, err := v.admin.RevokeLease(t.Context(), lease.ID, 0); err != nil {
		t.Fatal(err)
	}
	nobody := v.Client(t, client.Config{})
	list, err := nobody.SSHRevokedKeys(t.Context(), "servers", nil)
	if err != nil || len(list) == 0 {
		t.Fatalf("the list: %d bytes, %v", len(list), err)
	}
	keys, err := nobody.SSHPublicKey(t.Context(), "servers", nil)
	if err != nil || len(keys) == 0 {
		t.Fatalf("the keys: %q, %v", keys, err)
	}
	if again, err := nobody.SSHRevokedKeys(t.Context(), "servers", list); again != nil || err != nil {
		t.Errorf("the same list: %d bytes, %v", len(again), err)
	}
	if again, err := nobody.SSHPublicKey(t.Context(), "servers", keys); again != nil || err != nil {
		t.Errorf("the same keys: %q, %v", again, err)
	}
	_, err = nobody.SSHRevokedKeys(t.Context(), "nothing", nil)
	mustFail(t, "the list of no engine", err, client.EngineNotFound)
}

// While the key of a CA is replaced, hosts trust both, and what either has signed lets in.
func TestSSHLoginRotation(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	v, h := newVault(t), sshtest.Start(t, trusting)
	v.sshEngine(t, "servers", map[string]any{"krl_max_age": "1s"}, deploy(nil))
	v.refresh(t, h, "servers")
	former, lease := v.signed(t, "servers", "deploy", time.Hour)
	mustLogIn(t, "before the rotation", h, former)

	if _, err := v.admin.RotateRoot(t.Context(), "servers"); err != nil {
		t.Fatalf("rotate: %v", err)
	}
	v.refresh(t, h, "servers")
	keys, err := os.ReadFile(h.Path("scaivault_ca"))
	if err != nil || bytes.Count(keys, []byte("\n")) != 2 {
		t.Fatalf("the keys during a rotation are %s, %v", keys, err)
	}
	mustLogIn(t, "with the former key's certificate", h, former)
	signer := func(l *client.Lease) string {
		parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l.Data()["signed_key"]))
		if err != nil {
			t.Fatal(err)
		}
		return ssh.FingerprintSHA256(parsed.(*ssh.Certificate).SignatureKey)
	}
	var later string
	eventually(t, within, "the new key signs", func() bool {
		key, l := v.signed(t, "servers", "deploy", time.Hour)
		later = key
		return signer(l) != signer(lease)
	})
	mustLogIn(t, "with the new key's certificate", h, later)
	mustLogIn(t, "with the former key's, after the new one signs", h, former)
	if _, err := v.admin.RevokeLease(t.Context(), lease.ID, 0); err != nil {
		t.Fatal(err)
	}
	v.refresh(t, h, "servers")
	mustNotLogIn(t, "what the former key signed, revoked", h, former, sshtest.User)
}

// ssh with a certificate of its own: the exit code is passed on, and nothing is left, neither on the
// disk nor at the server.
func TestSSHCommand(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	v, h := newVault(t), sshtest.Start(t, trusting)
	v.sshEngine(t, "servers", map[string]any{"krl_max_age": "1s"},
		deploy(client.Document{"default_user": sshtest.User}), deploy(client.Document{"name": "brief", "default_ttl": "2m", "max_ttl": "2m"}))
	v.refresh(t, h, "servers")
	temp := t.TempDir()
	login := func(role, destination string, args ...string) *exec.Cmd {
		cmd := v.command(t, append(append([]string{"ssh", "servers/" + role, destination}, h.ClientOptions()...), args...)...)
		cmd.Env = append(cmd.Env, "TMPDIR="+temp, "HOME="+temp)
		return cmd
	}
	mustBeOver := func(what string, logins int) {
		t.Helper()
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("%s: on the disk there is still %v, %v", what, left, err)
		}
		leases := v.leases(t, client.LeaseFilter{Engine: "servers"})
		if len(leases) != logins {
			t.Errorf("%s: there are %d leases", what, len(leases))
		}
		for _, l := range leases {
			if l.Status == api.LeaseActive || l.Revocation == nil || l.Revocation.Reason != api.ReasonRevoked || l.Metadata["via"] != "scaivault ssh" {
				t.Errorf("%s: the lease is %+v, %+v", what, l, l.Revocation)
			}
		}
	}

	out, err := login("deploy", sshtest.User+"@127.0.0.1", "id -un; exit 7").CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 7 || string(out) != sshtest.User+"\n" {
		t.Fatalf("it printed %q and ended with %v; sshd says %s", out, err, h.Log(t))
	}
	mustBeOver("a command", 1)
	if out, err := login("brief", fmt.Sprintf("ssh://%s@127.0.0.1:%d", sshtest.User, h.Port), "id", "-un").CombinedOutput(); err != nil || string(out) != sshtest.User+"\n" {
		t.Errorf("a URL, of a role with a short life: %q, %v", out, err)
	}
	if out, err := login("deploy", "127.0.0.1", "id -un").CombinedOutput(); err != nil || string(out) != sshtest.User+"\n" {
		t.Errorf("the role's own user: %q, %v", out, err)
	}
	mustBeOver("three commands", 3)

	if out, err := login("deploy", sshtest.Other+"@127.0.0.1", "true").CombinedOutput(); err == nil || !strings.Contains(string(out), "not one that the role allows") {
		t.Errorf("another user: %q, %v", out, err)
	}
	if out, err := login("deploy", "-oProxyCommand=touch "+filepath.Join(temp, "x"), "true").CombinedOutput(); err == nil || !strings.Contains(string(out), "is no destination") {
		t.Errorf("an option in the place of the destination: %q, %v", out, err)
	}
	mustBeOver("what was refused", 3)

	for i, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		cmd := login("deploy", sshtest.User+"@127.0.0.1", "echo up; exec sleep 600")
		up, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(up).ReadString('\n'); line != "up\n" {
			t.Errorf("it printed %q, %v; sshd says %s", line, err, h.Log(t))
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("it ended well by %v", signal)
		}
		mustBeOver(signal.String(), 4+i)
	}
}

// sshd and ssh-keygen read a list of ten thousand, and find in it who is and nobody else.
func TestSSHLoginManyRevoked(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	h := sshtest.Start(t, trusting)
	ca := sshtest.NewKey(t)
	mustCopy(t, ca+".pub", h.Path("scaivault_ca"))
	writeList(t, h.Path("scaivault_krl"), 10_000)
	in, out := sshtest.NewKey(t), sshtest.NewKey(t)
	for key, serial := range map[string]string{in: "7000", out: "10001"} {
		sshtest.Keygen(t, "-q", "-s", ca, "-I", "test", "-n", sshtest.User, "-z", serial, key+".pub")
	}
	mustLogIn(t, "who is not in the list", h, out)
	mustNotLogIn(t, "who is in the list", h, in, sshtest.User)
	asked, err := sshtest.Command(t, "ssh-keygen", "-Q", "-f", h.Path("scaivault_krl"), in+"-cert.pub", out+"-cert.pub").CombinedOutput()
	if err == nil || strings.Count(string(asked), "REVOKED") != 1 || !strings.Contains(string(asked), in) {
		t.Errorf("ssh-keygen says %s, %v", asked, err)
	}
}

// writeList writes the engine's list of the serials from 1 on.
func writeList(t *testing.T, file string, serials int) {
	t.Helper()
	revoked := make([]engine.Recipe, serials)
	for i := range revoked {
		revoked[i] = engine.Recipe(fmt.Sprintf(`{"lease_id":"lease_%d","issued":true,"serial":"%d"}`, i, i+1))
	}
	list, err := sshengine.Type{}.RevocationList(time.Now(), revoked)
	if err == nil {
		err = os.WriteFile(file, list, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mustCopy(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
