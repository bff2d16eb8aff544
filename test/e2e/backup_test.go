package e2e_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// host is where commands of the server's host are run.
type host struct {
	settings []string // flags of the server's place
	identity *age.X25519Identity
	dir      string // of the operator: the identity, the backups
}

func newHost(t *testing.T, settings ...string) *host {
	t.Helper()
	h := &host{settings: settings, dir: t.TempDir()}
	var err error
	if h.identity, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "identity"), []byte(h.identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) command(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	arguments = slices.Concat(arguments[:1], h.settings, arguments[1:]) // a flag that comes later counts
	cmd := exec.CommandContext(t.Context(), vaulttest.Program(t), arguments...)
	cmd.Env = []string{"HOME=" + h.dir, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = h.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run wants the command to succeed, or to fail and to say why.
func (h *host) run(t *testing.T, refusal string, arguments ...string) {
	t.Helper()
	out, err := h.command(t, arguments...).CombinedOutput()
	if (err == nil) != (refusal == "") || !strings.Contains(string(out), refusal) {
		t.Fatalf("scaivault %s: %v, want %q: %s", strings.Join(arguments, " "), err, refusal, out)
	}
}

func (h *host) backup(t *testing.T, name string) {
	t.Helper()
	h.run(t, "", "backup", "--recipient", h.identity.Recipient().String(), "--out", name)
}

// at is the same operator on another host.
func (h *host) at(settings ...string) *host {
	return &host{settings: settings, identity: h.identity, dir: h.dir}
}

// decrypted is all that a backup holds, as who has the identity sees it, and what is encoded in it.
func (h *host) decrypted(t *testing.T, name string) []byte {
	t.Helper()
	file, err := os.Open(filepath.Join(h.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := age.Decrypt(file, h.identity)
	if err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(plain)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range regexp.MustCompile(`[A-Za-z0-9+/]{16,}=*`).FindAll(text, -1) {
		if decoded, err := base64.StdEncoding.DecodeString(string(word)); err == nil {
			text = append(append(text, '\n'), decoded...)
		}
	}
	return text
}

// kind is a kind of store.
type kind string

const (
	embeddedStore kind = "embedded"
	sharedStore   kind = "shared"
)

// start runs a server on a new store, and tells where its key file is.
func (k kind) start(t *testing.T, stores *pgtest.Server) (v *vault, h *host, keyFile string) {
	t.Helper()
	if k == embeddedStore {
		v = newVault(t)
		keyFile = filepath.Join(v.Dir, "seal.key")
		return v, newHost(t, "--data-dir", v.Dir), keyFile
	}
	keyFile = filepath.Join(t.TempDir(), "seal.key")
	database := stores.SuperURL(stores.CreateDB(t))
	v = &vault{Server: vaulttest.StartNode(t, vaulttest.Node{Program: vaulttest.Program(t), Database: database, KeyFile: keyFile})}
	v.admin = v.Admin(t)
	v.remember(v.Token())
	v.allow(t, "engines", "system", "system:dynamic-engines",
		api.PolicyRule{PathPattern: "infra/**", Permissions: []api.Permission{"read", "rotate"}})
	return v, newHost(t, "--data-dir", v.Dir, "--database-url", database, "--seal-key-file", keyFile), keyFile
}

// restored restores the backup into a new store of the kind, with the key file of the old one, and
// runs a server on it; before is told the host once the place is empty.
func (k kind) restored(t *testing.T, old *vault, from *host, keyFile string, stores *pgtest.Server, before func(h *host)) *vault {
	t.Helper()
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	restore := func(h *host) {
		t.Helper()
		before(h)
		h.run(t, "", "restore", "--identity", "identity", "--in", "backup.age")
		h.run(t, "holds data", "restore", "--identity", "identity", "--in", "backup.age")
	}
	v := &vault{secrets: slices.Clone(old.secrets)}
	if k == sharedStore {
		database, dir := stores.SuperURL(stores.CreateDB(t)), filepath.Join(t.TempDir(), "node")
		restore(from.at("--data-dir", dir, "--database-url", database, "--seal-key-file", keyFile))
		v.Server = vaulttest.StartNode(t, vaulttest.Node{Program: vaulttest.Program(t), Database: database, KeyFile: keyFile, Token: old.Token()})
		v.admin = v.Admin(t)
		return v
	}
	// On the host of another server, whose data are moved aside.
	v.Server = vaulttest.Start(t)
	v.Kill(t)
	from.at("--data-dir", v.Dir).run(t, "holds data", "restore", "--identity", "identity", "--in", "backup.age", "--seal-key-file", keyFile)
	if err := errors.Join(os.Rename(v.Dir, v.Dir+"-aside"), os.Mkdir(v.Dir, 0o700),
		os.WriteFile(filepath.Join(v.Dir, "seal.key"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	restore(from.at("--data-dir", v.Dir))
	v.again(t)
	return v
}

// issuers ask for credentials until they are stopped.
type issuers struct {
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	answered []credential
}

func (v *vault) issuers(t *testing.T, n int) *issuers {
	t.Helper()
	i := &issuers{stop: make(chan struct{})}
	for range n {
		i.done.Go(func() {
			for {
				select {
				case <-i.stop:
					return
				default:
				}
				cred, err := v.ask(t.Context(), v.admin, "db", "reader", time.Hour)
				if err != nil {
					t.Errorf("a credential while a backup is taken: %v", err)
					return
				}
				i.mu.Lock()
				i.answered = append(i.answered, cred)
				i.mu.Unlock()
			}
		})
	}
	return i
}

// sofar is what was answered, at least n.
func (i *issuers) sofar(t *testing.T, n int) (all []credential) {
	t.Helper()
	eventually(t, 2*time.Minute, "credentials are answered", func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		all = slices.Clone(i.answered)
		return len(all) >= n
	})
	return all
}

func (i *issuers) end() []credential {
	close(i.stop)
	i.done.Wait()
	return i.answered
}

// A backup that is taken under load knows every credential answered before it began. Restored
// elsewhere, into the other kind of store as well, it names what was made since, removes nothing by
// itself, and does nothing at all before it is resumed.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	ways := [][2]kind{{embeddedStore, sharedStore}, {sharedStore, embeddedStore}}
	if size(0, 1) == 1 {
		ways = append(ways, [2]kind{embeddedStore, embeddedStore}, [2]kind{sharedStore, sharedStore})
	}
	for _, way := range ways {
		t.Run(string(way[0]+" to "+way[1]), func(t *testing.T) {
			t.Parallel()
			stores := pgtest.Shared(t, 15)
			s := newSource(t, pgtest.Shared(t, 17), functions)
			v, h, keyFile := way[0].start(t, stores)
			v.engine(t, s, "db", nil)
			v.role(t, "db", reader("reader"))
			ended := v.issue(t, v.admin, "db", "reader", time.Hour)

			load := v.issuers(t, 4)
			before := append(load.sofar(t, 30), ended)
			h.backup(t, "backup.age")
			n := len(load.sofar(t, 0))
			load.sofar(t, n+20)
			all := append(load.end(), ended)
			v.revoke(t, ended) // the backup does not know
			v.Kill(t)

			v.finder()(t, "the decrypted backup", h.decrypted(t, "backup.age"))
			if !bytes.Contains(h.decrypted(t, "backup.age"), []byte(before[0].username)) {
				t.Error("the decrypted backup does not even hold a user name: it was not looked at")
			}
			w := way[1].restored(t, v, h, keyFile, stores, func(h *host) { damagedBackups(t, h, keyFile) })
			known := map[string]bool{}
			for _, l := range w.leases(t, client.LeaseFilter{}) {
				known[l.Username] = true
			}
			for _, c := range before {
				if l := w.lease(t, c.lease); l.Username != c.username || l.Status != api.LeaseActive {
					t.Errorf("%s, answered before the backup began: %+v", c.username, l)
				}
			}
			quarantined(t, w, known, all)
			resumed(t, w, s, known, all, before[0], ended)
		})
	}
}

// damagedBackups are refused, and the place stays empty.
func damagedBackups(t *testing.T, h *host, keyFile string) {
	t.Helper()
	whole, err := os.ReadFile(filepath.Join(h.dir, "backup.age"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"cut.age": whole[:len(whole)-100], "flipped.age": flipped,
		"other-identity": []byte(other.String()), "other.key": []byte("scaivault-seal-key-1:" + strings.Repeat("A", 43) + "\n")} {
		if err := os.WriteFile(filepath.Join(h.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.run(t, "damaged or was cut off", "restore", "--identity", "identity", "--in", "cut.age")
	h.run(t, "damaged or was cut off", "restore", "--identity", "identity", "--in", "flipped.age")
	h.run(t, "encrypted to somebody else", "restore", "--identity", "other-identity", "--in", "backup.age")
	h.run(t, "sealed by key", "restore", "--identity", "identity", "--in", "backup.age", "--seal-key-file", "other.key")
	h.run(t, "does not hold the seal key", "restore", "--identity", "identity", "--in", "backup.age", "--seal-key-file", "nowhere")
	h.run(t, "", "restore", "--verify", "--identity", "identity", "--in", "backup.age", "--seal-key-file", keyFile)
}

// quarantined looks at a restored store before it is resumed: it tells what it does not know, and
// does nothing.
func quarantined(t *testing.T, w *vault, known map[string]bool, all []credential) {
	t.Helper()
	if _, err := w.ask(t.Context(), w.admin, "db", "reader", time.Hour); !errors.Is(err, client.ServiceUnavailable) {
		t.Errorf("issued in quarantine: %v", err)
	}
	found, err := w.admin.Reconcile(t.Context(), "db", false)
	if err != nil {
		t.Fatal(err)
	}
	unknown := 0
	for _, c := range all {
		if !known[c.username] {
			unknown++
			if !slices.Contains(found.Orphans, c.username) {
				t.Errorf("%s was made since the backup and is not named", c.username)
			}
		}
	}
	if unknown < 20 || len(found.Orphans) != unknown {
		t.Errorf("%d accounts are unknown, and %d are named", unknown, len(found.Orphans))
	}
	if report, err := w.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chains: %+v, %v", report, err)
	}
}

// resumed lets life go on: what is unknown stays until somebody says more than that it be removed.
func resumed(t *testing.T, w *vault, s *source, known map[string]bool, all []credential, kept, ended credential) {
	t.Helper()
	if _, err := w.admin.Resume(t.Context(), api.ResumeRequest{OnlyCopy: true}); err != nil {
		t.Fatal(err)
	}
	s.readItems(t, w.issue(t, w.admin, "db", "reader", time.Hour))
	for _, remove := range []func() (api.ReconcileResult, error){
		func() (api.ReconcileResult, error) { return w.admin.Reconcile(t.Context(), "db", true) },
		func() (api.ReconcileResult, error) { return w.admin.ReconcileRestored(t.Context(), "db") },
	} {
		if found, err := remove(); err != nil || len(found.Removed) != 0 {
			t.Errorf("removed at once: %v, %v", found.Removed, err)
		}
	}
	if _, err := w.admin.RevokeLease(t.Context(), ended.lease, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Minute, "a lease whose account was dropped since the backup is dead", func() bool {
		return w.lease(t, ended.lease).Status == api.LeaseRevoked
	})
	var forgotten credential
	for _, c := range all {
		switch {
		case c == ended:
			continue
		case !known[c.username]:
			forgotten = c
		}
		if err := s.tryLogin(c); err != nil {
			t.Errorf("%s does not log in any more: %v", c.username, err)
		}
	}
	w.revoke(t, kept)
	s.mustBeDead(t, kept)
	if err := s.tryLogin(forgotten); err != nil {
		t.Errorf("%s: %v", forgotten.username, err)
	}
}

// A backup or a restore that is killed at any moment leaves nothing that is taken for a whole one.
func TestKilledBackupAndRestore(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{embeddedStore, sharedStore} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			stores := pgtest.Shared(t, 15)
			v, h, keyFile := k.start(t, stores)
			for i := range 20 {
				v.account(t, fmt.Sprint("app-", i), "dynamic/x/y")
			}
			h.backup(t, "backup.age")

			killed := func(h *host, within time.Duration, arguments ...string) {
				t.Helper()
				cmd := h.command(t, arguments...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(rand.N(within))
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			for range size(3, 60) {
				killed(h, 80*time.Millisecond, "backup", "--recipient", h.identity.Recipient().String(), "--out", "killed.age")
				if _, err := os.Stat(filepath.Join(h.dir, "killed.age")); err == nil {
					h.run(t, "", "restore", "--verify", "--identity", "identity", "--in", "killed.age")
				}
			}
			v.Kill(t)

			for range size(3, 60) {
				dir := filepath.Join(t.TempDir(), "node")
				place := []string{"--data-dir", dir, "--seal-key-file", keyFile}
				if k == sharedStore {
					place = append(place, "--database-url", stores.SuperURL(stores.CreateDB(t)))
				}
				to := h.at(place...)
				killed(to, 300*time.Millisecond, "restore", "--identity", "identity", "--in", "backup.age")
				out, err := to.command(t, "bootstrap").CombinedOutput()
				whole := err == nil // so the restore had come to its end
				if !whole && !strings.Contains(string(out), "run scaivault restore again") && !strings.Contains(string(out), "there is no store") {
					t.Fatalf("a killed restore left what is opened, or says nothing of use: %s", out)
				}
				refusal := ""
				if whole {
					refusal = "holds data"
				}
				to.run(t, refusal, "restore", "--identity", "identity", "--in", "backup.age")
				to.run(t, "", "bootstrap")
			}
		})
	}
}
