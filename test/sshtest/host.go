package sshtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// The users of every host. Neither has a password or keys of its own.
const (
	User  = "deploy"
	Other = "backup-operator"
)

// Host is a machine with an sshd that runs.
type Host struct {
	Port int

	dir     string // etc/, known_hosts, log
	process *servertest.Process
	pid     int
}

type options struct{ lines, pam []string }

// Option changes how a host is set up.
type Option func(*options)

// WithLines adds lines to sshd_config, in front of those that shut every other way in.
func WithLines(lines ...string) Option {
	return func(o *options) { o.lines = append(o.lines, lines...) }
}

// WithPAM lets sshd ask PAM, which has these lines for it.
func WithPAM(lines ...string) Option {
	return func(o *options) { o.pam = lines }
}

// boot makes the machine around sshd: $1 becomes /etc.
const boot = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$1" /etc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
exec "$2" -D -f /etc/ssh/sshd_config -E "$3"`

// NewHost makes a host that is off: what its sshd_config names can be put into its /etc/ssh before
// Boot.
func NewHost(t TB, opts ...Option) *Host {
	t.Helper()
	var o options
	for _, option := range opts {
		option(&o)
	}
	port, err := freeport.Pick()
	if err != nil {
		t.Fatalf("make a host: %v", err)
	}
	h := &Host{Port: port, dir: t.TempDir()}
	if out, err := exec.Command("cp", "-a", "/etc", h.path("etc")).CombinedOutput(); err != nil { //nolint:noctx // a few files
		t.Fatalf("make a host: copy /etc: %v: %s", err, out)
	}
	if err := h.configure(o); err != nil {
		t.Fatalf("make a host: %v", err)
	}
	Keygen(t, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", h.Path("host_key"))
	public, err := os.ReadFile(h.Path("host_key.pub"))
	if err != nil {
		t.Fatalf("make a host: %v", err)
	}
	known := fmt.Sprintf("[127.0.0.1]:%d %s", h.Port, public)
	if err := os.WriteFile(h.path("known_hosts"), []byte(known), 0o600); err != nil {
		t.Fatalf("make a host: %v", err)
	}
	return h
}

// Start is a host that runs until the end of the test.
func Start(t TB, opts ...Option) *Host {
	t.Helper()
	h := NewHost(t, opts...)
	h.Boot(t)
	return h
}

// configure writes the users, sshd's configuration and its PAM lines.
func (h *Host) configure(o options) error {
	if err := os.RemoveAll(h.Path("")); err != nil {
		return err
	}
	if err := os.MkdirAll(h.Path("sshd_config.d"), 0o755); err != nil {
		return err
	}
	lines := append([]string{
		"Include /etc/ssh/sshd_config.d/*.conf", "KexAlgorithms curve25519-sha256", // a cheap one: tests log in often
		"Port " + strconv.Itoa(h.Port), "ListenAddress 127.0.0.1", "HostKey /etc/ssh/host_key", "LogLevel VERBOSE", "PidFile none",
	}, o.lines...)
	lines = append(lines, "AuthorizedKeysFile none", "PasswordAuthentication no", "PermitRootLogin no")
	if o.pam == nil {
		lines = append(lines, "UsePAM no", "KbdInteractiveAuthentication no")
	} else {
		lines = append(lines, "UsePAM yes", "KbdInteractiveAuthentication yes")
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nsshd:x:61000:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n" +
			User + ":x:61001:61001::/:/bin/sh\n" + Other + ":x:61002:61002::/:/bin/sh\n",
		"shadow":          "root:*:19000::::::\nsshd:!:19000::::::\n" + User + ":*:19000::::::\n" + Other + ":*:19000::::::\n",
		"group":           "root:x:0:\nnogroup:x:65534:\n" + User + ":x:61001:\n" + Other + ":x:61002:\n",
		"ssh/sshd_config": strings.Join(lines, "\n") + "\n",
		"pam.d/sshd":      strings.Join(o.pam, "\n") + "\n",
	} {
		if err := os.WriteFile(filepath.Join(h.path("etc"), name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) path(name string) string { return filepath.Join(h.dir, name) }

// Boot starts the sshd of a host that is off.
func (h *Host) Boot(t TB) {
	t.Helper()
	sshd, err := find("sshd")
	if err != nil {
		t.Fatalf("%v", err)
	}
	cmd := exec.Command("/bin/sh", "-c", boot, "boot", h.path("etc"), sshd, h.path("log")) //nolint:noctx // ended by Kill
	cmd.Env = append(Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	var output strings.Builder
	cmd.Stderr = &output
	if h.process, err = servertest.Start(cmd, h.listening); err != nil {
		t.Fatalf("start sshd: %v; it said: %s%s", err, output.String(), h.Log(t))
	}
	h.pid = cmd.Process.Pid
	t.Cleanup(func() {
		if err := h.process.Kill(); err != nil {
			t.Fatalf("end sshd: %v", err)
		}
	})
}

func (h *Host) listening() bool {
	conn, err := net.Dial("tcp", h.Addr()) //nolint:noctx // on loopback: at once or never
	return err == nil && conn.Close() == nil
}

// Addr is host and port.
func (h *Host) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(h.Port)) }

// Path is where a file of the host's /etc/ssh is found from outside.
func (h *Host) Path(name string) string { return filepath.Join(h.path("etc"), "ssh", name) }

// Enter makes a command run on the host, as its root.
func (h *Host) Enter(cmd *exec.Cmd) *exec.Cmd {
	inside := append([]string{"nsenter", "--target", strconv.Itoa(h.pid), "--mount", "--pid", "--wd=/", "--", cmd.Path}, cmd.Args[1:]...)
	entering := exec.Command(inside[0], inside[1:]...) //nolint:noctx // as long as the command
	entering.Env = cmd.Env
	return entering
}

// Log is all that sshd has logged.
func (h *Host) Log(t TB) string {
	t.Helper()
	text, err := os.ReadFile(h.path("log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatalf("read the log of sshd: %v", err)
	}
	return string(text)
}

// ClientOptions are what ssh must be told to reach the host, and to use nothing that the user who
// runs the tests has.
func (h *Host) ClientOptions() []string {
	return []string{
		"-F", "/dev/null", "-p", strconv.Itoa(h.Port),
		"-o", "UserKnownHostsFile=" + h.path("known_hosts"), "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60",
	}
}

// Login runs a command on the host as user with a private key, beside which its certificate lies in
// -cert.pub, and returns what it printed. An error means that it was not let in, or that the command
// failed.
func (h *Host) Login(t TB, key, user, command string, more ...string) (string, error) {
	t.Helper()
	args := append(h.ClientOptions(), "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes")
	return output(Command(t, "ssh", append(append(args, more...), user+"@127.0.0.1", command)...))
}

// LoginPassword is Login with a password, asked for by keyboard-interactive as PAM does.
func (h *Host) LoginPassword(t TB, password, user, command string, more ...string) (string, error) {
	t.Helper()
	ssh, err := find("ssh")
	if err != nil {
		t.Fatalf("%v", err)
	}
	args := append([]string{"-e", ssh}, h.ClientOptions()...)
	args = append(args, "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1")
	cmd := Command(t, "sshpass", append(append(args, more...), user+"@127.0.0.1", command)...)
	cmd.Env = append(cmd.Env, "SSHPASS="+password)
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
}
