package custom_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/statement"
)

// checks begins a script that is well and healthy until it is to make a credential.
const checks = `read -r request
case "$request" in *'"function":"check"'*) echo '{"ok": true}'; exit;; esac
`

// Programs that are wrong in every way: each ends in the error that tells which, within its time, and
// nothing of it is left. What it may have made is revoked.
func TestHostilePrograms(t *testing.T) {
	t.Parallel()
	const short, enough = time.Second, time.Minute
	for name, test := range map[string]struct {
		script, code string
		limit        time.Duration
	}{
		"exits non-zero":            {`echo '{"data": {"password": "hunter2hunter2"}}'; exit 3`, "program_failed", enough},
		"dies by a signal":          {`kill -9 $$`, "program_failed", enough},
		"prints nothing":            {`exit 0`, "program_reply_invalid", enough},
		"prints no JSON":            {`echo hunter2hunter2`, "program_reply_invalid", enough},
		"prints more than JSON":     {`echo '{"data": {"a": "b"}}'; echo hunter2hunter2`, "program_reply_invalid", enough},
		"prints no credential":      {`echo '{"data": {}}'`, "program_reply_invalid", enough},
		"prints an unknown field":   {`echo '{"data": {"a": "b"}, "reference": 1}'`, "program_reply_invalid", enough},
		"prints a number":           {`echo '{"data": {"a": 1}}'`, "program_reply_invalid", enough},
		"prints null":               {`echo null`, "program_reply_invalid", enough},
		"keeps the secret":          {`echo '{"data": {"password": "hunter2hunter2"}, "ref": {"with": ["hunter2hunter2"]}}'`, "program_reply_invalid", enough},
		"keeps the root's secret":   {`echo '{"data": {"a": "b"}, "ref": {"user": "admin", "with": ["hunter2-of-the-root"]}}'`, "program_reply_invalid", enough},
		"claims an unknown failure": {`echo '{"error": {"kind": "hunter2hunter2"}}'`, "program_reply_invalid", enough},
		"refuses, uncertain":        {`echo '{"error": {"kind": "uncertain", "message": "hunter2hunter2"}}'`, "program_refused", enough},
		"prints a gigabyte":         {`exec head -c 1000000000 /dev/zero`, "program_output_too_large", enough},
		"loops":                     {`while :; do :; done`, "program_timed_out", short},
		"ignores signals":           {`trap '' TERM INT HUP; while :; do sleep 1; done`, "program_timed_out", short},
		"closes output and stays":   {`exec >&-; sleep 1000`, "program_timed_out", short},
		"holds its input":           {`exec sleep 1000`, "program_timed_out", short},
		"forks":                     {`while :; do setsid sh -c 'while :; do setsid sleep 1000 & done' & done`, "", short},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := host(t, map[string]string{"program": checks + test.script})
			var log bytes.Buffer
			o := options(t, "program", nil)
			o.Root = map[string]statement.Secret{"username": "admin", "admin_password": "hunter2-of-the-root"}
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			e := open(t, h, o)
			_, err := e.Issue(t.Context(), plan(t, e, test.limit))
			var known *engine.Error
			if !errors.As(err, &known) || known.Kind != engine.Uncertain {
				t.Fatalf("%#v", err)
			}
			f := source.Fault("own", err)
			if f.Code != "engine_error" || test.code != "" && f.Details["code"] != test.code {
				t.Errorf("%s, %v", f.Code, f.Details)
			}
			if strings.Contains(f.Error(), "hunter2") || strings.Contains(known.Reason, "hunter2") {
				t.Errorf("what the program says reaches the caller: %v", f)
			}
			if left := runningIn(t, h.Programs); len(left) > 0 {
				t.Errorf("left running: %v", left)
			}
			if health := e.Check(t.Context()); health.Status != "healthy" {
				t.Errorf("%+v", health)
			}
		})
	}
}

// What works hard and fails is not begun again at once, and says so without having run; what ends a
// credential is.
func TestPausesWhatWorksHard(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"program": checks + `case "$request" in *'"function":"revoke"'*) echo '{}'; exit;; esac
ulimit -t 1; while :; do :; done`})
	for name, extra := range map[string]map[string]any{
		"exec": nil,
		"starlark": {"runtime": "starlark", "command": "", "script": `
def issue(ctx):
    for i in range(1000 * 1000 * 1000):
        pass
def revoke(ctx):
    return {}
`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, "program", extra)
			var err error
			var p *engine.Plan
			const enough = 20
			e := open(t, h, o)
			for tries := 0; ; tries++ {
				p = plan(t, e, 5*time.Minute)
				if _, err = e.Issue(t.Context(), p); engine.KindOf(err) == engine.Busy {
					break
				}
				if err == nil || tries == enough {
					t.Fatalf("after %d tries: %v", tries, err)
				}
			}
			if f := source.Fault("own", err); f.Code != "engine_unavailable" || !strings.Contains(f.Error(), "issue is paused for ") {
				t.Errorf("%s: %v", f.Code, f)
			}
			if outcome, err := e.Revoke(t.Context(), p.Recipe); err != nil {
				t.Errorf("revoke: %v, %v", outcome, err)
			}
		})
	}
}

// runningIn are the processes that came of programs of a folder: the name is on their command line,
// or they are in no folder of ours but of the user that only programs run as.
func runningIn(t *testing.T, dir string) (left []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(dir)) {
			left = append(left, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return left
}

// What a program writes on standard error is for the log, without the secrets that it was given and
// those that it gave.
func TestMessages(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"program": checks + `
echo "connecting as root with first-line-of-it" >&2
echo "and second-line-of-it, and \"quoted\\\"secret\"" >&2
echo "made made-password on public-host" >&2
echo "sending Authorization: Basic $(printf 'root:made-password' | base64)" >&2
i=0; while [ $i -lt 100 ]; do echo "line $i" >&2; i=$((i + 1)); done
head -c 10000 /dev/zero | tr '\0' x >&2
echo '{"data": {"password": "made-password", "host": "public-host"}, "public": ["host"]}'`})
	var log safeBuffer
	o := options(t, "program", nil)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o.Root = map[string]statement.Secret{"key": "first-line-of-it\nsecond-line-of-it", "password": `quoted"secret`, "port": "5432"}
	e := open(t, h, o)
	if _, err := e.Issue(t.Context(), plan(t, e, time.Minute)); err != nil {
		t.Fatal(err)
	}
	said := log.String()
	for _, secret := range []string{"first-line", "second-line", "quoted", "made-password", "YWRlLXBhc3N3b3Jk"} {
		if strings.Contains(said, secret) {
			t.Errorf("the log holds %s: %s", secret, said)
		}
	}
	for _, want := range []string{"connecting as root with [redacted]", "public-host", "line 40", "a program said more than is logged"} {
		if !strings.Contains(said, want) {
			t.Errorf("the log lacks %q: %s", want, said)
		}
	}
	if strings.Contains(said, "line 90") || len(said) > 20_000 {
		t.Errorf("the log is not bounded: %d bytes", len(said))
	}
}

// safeBuffer may be written from several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A reply of so many secrets that looking for each of them would keep the server busy has nothing logged.
func TestMessagesOfAFlood(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"program": checks + `
head -c 60000 /dev/zero | tr '\0' x >&2
echo "made secret-00007" >&2
printf '{"data": {"all": ["secret"'; i=0; while [ $i -lt 2000 ]; do printf ',"secret-%05d"' $i; i=$((i + 1)); done; echo ']}}'`})
	var log safeBuffer
	o := options(t, "program", nil)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	e := open(t, h, o)
	if _, err := e.Issue(t.Context(), plan(t, e, time.Minute)); err == nil {
		t.Fatal("a list is taken for a text")
	}
	if said := log.String(); strings.Contains(said, "00007") || !strings.Contains(said, "too many secrets") {
		t.Errorf("the log holds a secret, or does not say why nothing is logged: %.2000s", said)
	}
}

// A reply that is no good gives secrets all the same, and a secret that begins with another one goes as a
// whole.
func TestMessagesOfABadReply(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"program": checks + `
echo "made made-password as tenant_admin-1234 by tenant_admin" >&2
echo '{"data": {"password": "made-password", "port": 5432}}'`})
	var log safeBuffer
	o := options(t, "program", nil)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o.Root = map[string]statement.Secret{"username": "tenant_admin", "password": "tenant_admin-1234"}
	e := open(t, h, o)
	for range 10 { // in whatever order the root's fields come
		if _, err := e.Issue(t.Context(), plan(t, e, time.Minute)); err == nil {
			t.Fatal("a number is taken for a text")
		}
	}
	if said := log.String(); strings.Contains(said, "made-password") || strings.Contains(said, "1234") {
		t.Errorf("the log holds a secret: %s", said)
	}
}
