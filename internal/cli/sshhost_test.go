package cli_test

import (
	"bytes"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/cli"
)

const (
	caKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqYs3bK0BZ6wvGFvdEDHZXVpQsO8yVYvKqKZ8ZBOz1n servers\n"
	// emptyKRL revokes nothing; another one has the version behind the magic and the format.
	emptyKRL = "5353484b524c0a00" + "00000001" + "0000000000000001" + "0000000000000000" + "0000000000000000" + "00000000" + "00000000"
)

// host runs `scaivault ssh-host` as a host with this environment does.
type host struct {
	environ []string
	in      string
}

func (h host) run(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	var out, complaints bytes.Buffer
	code = cli.Main(t.Context(), cli.Process{
		Args: append([]string{"ssh-host"}, args...), Environ: h.environ, In: strings.NewReader(h.in), Out: &out, Err: &complaints,
	})
	return code, out.String() + complaints.String()
}

// answering is a server that answers as the handler of the moment does.
func answering(t *testing.T) (url string, set func(http.HandlerFunc)) {
	t.Helper()
	var handler atomic.Pointer[http.HandlerFunc]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*handler.Load())(w, r) }))
	t.Cleanup(s.Close)
	return s.URL, func(h http.HandlerFunc) { handler.Store(&h) }
}

func document(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("ETag", api.EntityTag(data))
		if r.Header.Get("If-None-Match") == api.EntityTag(data) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(data)
	}
}

// A copy follows the server, and no failure touches it.
func TestSSHHostCopies(t *testing.T) {
	t.Parallel()
	list, err := hex.DecodeString(emptyKRL)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(list)
	newer[19] = 2
	for name, versions := range map[string][2][]byte{
		"krl": {list, newer},
		"ca":  {[]byte(caKey), []byte(caKey + caKey)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, answer := answering(t)
			file := filepath.Join(t.TempDir(), "copy")
			keep := func() (int, string) {
				t.Helper()
				return host{}.run(t, name, "--url", url, "--engine", "servers", "--file", file, "--max-age", "10m")
			}
			for _, data := range versions {
				answer(document(data))
				if code, said := keep(); code != 0 {
					t.Fatalf("it ended with %d: %s", code, said)
				}
				mustHold(t, file, data)
			}
			held := versions[1]

			old := time.Now().Add(-time.Hour)
			makeOld := func() {
				if err := os.Chtimes(file, old, old); err != nil {
					t.Fatal(err)
				}
			}
			makeOld()
			if code, said := keep(); code != 0 || said != "" {
				t.Errorf("without news it ended with %d: %s", code, said)
			}
			if info, err := os.Stat(file); err != nil || time.Since(info.ModTime()) > 30*time.Minute {
				t.Errorf("the time of the copy is not that of its last comparison: %v, %v", info.ModTime(), err)
			}

			for what, h := range map[string]http.HandlerFunc{
				"nothing":       func(http.ResponseWriter, *http.Request) {},
				"a page":        func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>please log in</html>")) },
				"half of it":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(versions[0][:30]) },
				"the other one": document(map[string][]byte{"krl": []byte(caKey), "ca": list}[name]),
				"a private key": document([]byte("-----BEGIN OPENSSH PRIVATE KEY-----\n")),
				"options":       document([]byte("command=\"x\" " + caKey)),
				"a redirect":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
				"503":           func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
				"cut off": func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Length", "4096")
					_, _ = w.Write(versions[0])
				},
			} {
				answer(h)
				if code, said := keep(); code == 0 || strings.Contains(said, "warning") {
					t.Errorf("%s: it ended with %d: %s", what, code, said)
				}
				mustHold(t, file, held)
			}

			makeOld()
			if code, said := keep(); code == 0 || !strings.Contains(said, "warning: "+file+" was last known to be current 1h0m") {
				t.Errorf("with an old copy it ended with %d: %s", code, said)
			}

			// A copy that something else has damaged is brought again, though the server has no news.
			if err := os.WriteFile(file, []byte("damaged"), 0o644); err != nil {
				t.Fatal(err)
			}
			answer(document(held))
			if code, said := keep(); code != 0 {
				t.Errorf("with a damaged copy it ended with %d: %s", code, said)
			}
			mustHold(t, file, held)
		})
	}
}

// mustHold wants the file, readable by everybody and alone in its folder.
func mustHold(t *testing.T, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy is %q, %v", got, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the copy is %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("beside the copy: %v, %v", entries, err)
	}
}

// Who can stand in for the server decides who logs in: it is asked by https alone.
func TestSSHHostWantsTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := writeToken(t, 0o600)
	// What verify-otp says may be in the machine's syslog.
	for _, address := range []string{"http://vault.example.com", "http://192.0.2.1:8200", "http://localhost.example.com"} {
		for _, args := range [][]string{
			{"krl", "--file", filepath.Join(dir, "copy")}, {"ca", "--file", filepath.Join(dir, "copy")}, {"verify-otp", "--token-file", token},
		} {
			h := host{environ: pamEnviron, in: "a-password\x00"}
			if code, said := h.run(t, append(args, "--url", address, "--engine", "servers")...); code == 0 || args[0] != "verify-otp" && !strings.Contains(said, "is not https") {
				t.Errorf("%v of %s ended with %d: %s", args, address, code, said)
			}
		}
	}
}

var pamEnviron = []string{"PAM_TYPE=auth", "PAM_USER=deploy", "PAM_RHOST=198.51.100.7", "SSH_CONNECTION=198.51.100.7 40000 192.0.2.10 22"}

func writeToken(t *testing.T, mode os.FileMode) string {
	t.Helper()
	return writeFile(t, mode, "skt_of-the-host\n")
}

func writeFile(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// A login is let in by one answer only, and nothing else than the flags says whom to ask.
func TestSSHHostVerify(t *testing.T) {
	t.Parallel()
	url, answer := answering(t)
	token := writeToken(t, 0o600)
	good := func(w http.ResponseWriter, r *http.Request) {
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(r.Body)
		const want = `{"otp":"otp-7hX2","username":"deploy","ip":"192.0.2.10","client_ip":"198.51.100.7"}`
		const unknown = `{"otp":"otp-7hX2","username":"deploy","ip":"192.0.2.10"}` // where sshd looked up a name
		if got := body.String(); r.URL.Path != "/v1/dynamic/engines/otp/ssh/verify" || r.Header.Get("Authorization") != "Bearer skt_of-the-host" || got != want && got != unknown {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(`{"valid":true,"username":"deploy","ip":"192.0.2.10","role":"web","lease_id":"lease_1"}`))
	}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
	}
	with := func(more ...string) []string { return append(append([]string{}, pamEnviron...), more...) }
	for _, c := range []struct {
		name    string
		h       http.HandlerFunc
		in      string
		environ []string
		flags   []string
		ok      bool
	}{
		{name: "right", h: good, in: "otp-7hX2\x00", ok: true},
		{name: "without a NUL", h: good, in: "otp-7hX2", ok: true},
		{name: "an address of its own", h: good, in: "otp-7hX2\x00", environ: with("SSH_CONNECTION=x"), flags: []string{"--address", "192.0.2.10"}, ok: true},
		{name: "mapped", h: good, in: "otp-7hX2\x00", environ: with("SSH_CONNECTION=::1 1 ::ffff:192.0.2.10 22"), ok: true},
		{name: "a client with a name", h: good, in: "otp-7hX2\x00", environ: with("PAM_RHOST=laptop.example.com"), ok: true},
		{name: "another client", h: good, in: "otp-7hX2\x00", environ: with("PAM_RHOST=198.51.100.8")},
		{name: "another address", h: good, in: "otp-7hX2\x00", flags: []string{"--address", "192.0.2.11"}},
		{name: "another user", h: good, in: "otp-7hX2\x00", environ: with("PAM_USER=root")},
		{name: "no user", h: good, in: "otp-7hX2\x00", environ: with("PAM_USER=")},
		{name: "no address", h: good, in: "otp-7hX2\x00", environ: with("SSH_CONNECTION=")},
		{name: "a name for an address", h: good, in: "otp-7hX2\x00", flags: []string{"--address", "web1"}},
		{name: "another phase", h: text(`{"valid":true,"username":"deploy"}`), in: "otp-7hX2\x00", environ: with("PAM_TYPE=open_session")},
		{name: "no password", h: text(`{"valid":true,"username":"deploy"}`), in: "\x00"},
		{name: "a long password", h: text(`{"valid":true,"username":"deploy"}`), in: strings.Repeat("x", 513) + "\x00"},
		{name: "a NUL inside", h: text(`{"valid":true,"username":"deploy"}`), in: "otp\x00-7hX2\x00"},
		{name: "not valid", h: text(`{"valid":false,"username":"deploy"}`), in: "otp-7hX2\x00"},
		{name: "an answer for somebody else", h: text(`{"valid":true,"username":"root"}`), in: "otp-7hX2\x00"},
		{name: "an empty answer", h: text(``), in: "otp-7hX2\x00"},
		{name: "an empty document", h: text(`{}`), in: "otp-7hX2\x00"},
		{name: "a page", h: text(`<html>ok</html>`), in: "otp-7hX2\x00"},
		{name: "refused", h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, in: "otp-7hX2\x00"},
		{name: "no server", h: good, in: "otp-7hX2\x00", flags: []string{"--url", "http://127.0.0.1:1"}},
		{name: "an unknown flag", h: good, in: "otp-7hX2\x00", flags: []string{"--yes"}},
		{name: "no token", h: good, in: "otp-7hX2\x00", flags: []string{"--token-file", token + "-not"}},
		{name: "a token that others can read", h: good, in: "otp-7hX2\x00", flags: []string{"--token-file", writeToken(t, 0o640)}},
		{name: "half an account", h: good, in: "otp-7hX2\x00", flags: []string{"--token-file", writeFile(t, 0o600, `{"client_id":"sa_1"}`)}},
		{name: "a patient one", h: good, in: "otp-7hX2\x00", flags: []string{"--timeout", "2m"}},
	} {
		answer(c.h)
		h := host{environ: pamEnviron, in: c.in}
		if c.environ != nil {
			h.environ = c.environ
		}
		h.environ = append([]string{"SCAIVAULT_URL=http://127.0.0.1:1", "SCAIVAULT_TOKEN=skt_of-somebody"}, h.environ...)
		code, said := h.run(t, append([]string{"verify-otp", "--url", url, "--engine", "otp", "--token-file", token, "--timeout", "60s"}, c.flags...)...)
		if (code == 0) != c.ok {
			t.Errorf("%s: it ended with %d: %s", c.name, code, said)
		}
		for _, secret := range []string{"otp-7hX2", "skt_", "xxx"} {
			if strings.Contains(said, secret) {
				t.Errorf("%s: it says a secret: %s", c.name, said)
			}
		}
	}
	if code, _ := (host{environ: append(pamEnviron, "SCAIVAULT_URL="+url), in: "otp-7hX2\x00"}).run(t, "verify-otp", "--engine", "otp", "--token-file", token); code == 0 {
		t.Error("the environment said whom to ask")
	}
}

// A server that does not answer holds a login up for the time that was set, and lets nobody in.
func TestSSHHostVerifyTimesOut(t *testing.T) {
	t.Parallel()
	url, answer := answering(t)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	answer(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = bytes.NewBuffer(nil).ReadFrom(r.Body)
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	h := host{environ: pamEnviron, in: "otp-7hX2\x00"}
	ended := make(chan int, 1)
	go func() {
		code, _ := h.run(t, "verify-otp", "--url", url, "--engine", "otp", "--token-file", writeToken(t, 0o600), "--timeout", "1s")
		ended <- code
	}()
	select {
	case code := <-ended:
		if code == 0 {
			t.Error("silence let somebody in")
		}
	case <-time.After(2 * time.Minute):
		t.Error("it waits for ever")
	}
}
