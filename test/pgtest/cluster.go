package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/scaivault/scaivault/test/servertest"
)

// Superuser is the name of the bootstrap superuser of every server.
const Superuser = "postgres"

// passwordFile lies in a template beside the data folder.
const passwordFile = "password"

// newCluster makes a data folder at dir/data and returns the superuser's
// password. initdb takes two seconds, a copy of its result a tenth of one.
func newCluster(ctx context.Context, in installation, a account, dir string, ownIdentity bool) (password string, err error) {
	source := dir
	if ownIdentity {
		err = initdb(ctx, in, a, dir)
	} else {
		source, err = template(ctx, in, a)
		if err == nil {
			err = os.CopyFS(filepath.Join(dir, "data"), os.DirFS(filepath.Join(source, "data")))
		}
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(source, passwordFile))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// template returns the folder of an initialised cluster that nobody has
// started, and makes it if need be. One process makes it while the others wait
// at the lock; it appears by a rename, whole or not at all.
func template(ctx context.Context, in installation, a account) (string, error) {
	root := filepath.Join(cacheDir(), "pg")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	final := filepath.Join(root, fmt.Sprintf("template-%s-uid%d", in.version, os.Geteuid()))
	lock, err := os.OpenFile(final+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}

	// The server's user cannot always enter the cache, so initdb runs in a
	// temporary folder and root, or the user itself, brings the result home.
	work, err := a.tempDir()
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := initdb(ctx, in, a, work); err != nil {
		return "", err
	}
	partial := final + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	if err := os.CopyFS(partial, os.DirFS(work)); err != nil {
		return "", fmt.Errorf("keep the template: %w", err)
	}
	if err := os.Chmod(partial, 0o700); err != nil {
		return "", err
	}
	return final, os.Rename(partial, final)
}

// initdb makes dir/data and dir/password.
func initdb(ctx context.Context, in installation, a account, dir string) error {
	pwfile := filepath.Join(dir, passwordFile)
	if err := os.WriteFile(pwfile, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	if err := a.own(dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(in.bin, "initdb"),
		"--pgdata", filepath.Join(dir, "data"), "--username", Superuser, "--pwfile", pwfile,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	cmd.Dir = dir
	cmd.Env = serverEnv()
	cmd.SysProcAttr = a.procAttr()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run initdb: %w: %s", err, out)
	}
	return nil
}

// tighten gives a finished data folder the owner and the modes that postgres
// insists on: os.CopyFS widens folders to 0777 less the umask.
func tighten(a account, data string) error {
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	})
	return errors.Join(err, a.own(data))
}

// configure appends to the files of initdb. postgresql.conf is used rather
// than the command line so that ALTER SYSTEM still works in a test.
func configure(data string, o LaunchOptions, port int) error {
	durable := "off"
	if o.Fsync {
		durable = "on"
	}
	settings := map[string]string{
		"listen_addresses":          "127.0.0.1",
		"port":                      fmt.Sprint(port),
		"unix_socket_directories":   "",
		"fsync":                     durable,
		"full_page_writes":          durable,
		"max_connections":           "300",
		"max_prepared_transactions": "20",
		"password_encryption":       "scram-sha-256",
		"log_line_prefix":           "%m [%p] %q%u@%d/%a ",
		"timezone":                  "UTC",
	}
	for name, value := range o.Settings {
		settings[name] = value
	}
	if o.TLS {
		settings["ssl"] = "on"
		settings["ssl_cert_file"] = servertest.CertFile
		settings["ssl_key_file"] = servertest.KeyFile
	}
	var conf strings.Builder
	conf.WriteString("\n# pgtest\n")
	for name, value := range settings {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	}
	if err := appendFile(filepath.Join(data, "postgresql.conf"), conf.String()); err != nil {
		return err
	}
	if len(o.HBA) == 0 {
		return nil
	}
	hba := filepath.Join(data, "pg_hba.conf")
	rest, err := os.ReadFile(hba)
	if err != nil {
		return err
	}
	return os.WriteFile(hba, []byte(strings.Join(o.HBA, "\n")+"\n"+string(rest)), 0o600)
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// serverEnv keeps the caller's PG* variables and locale from the server.
func serverEnv() []string {
	return []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}
