package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/scaivault/scaivault/client"
)

const (
	// runTTL is what a credential outlives run at most, where run is killed
	// without being able to revoke it.
	runTTL = 15 * time.Minute

	// runRevokeTime bounds the revocation after the command has ended.
	runRevokeTime = 30 * time.Second
)

// childExit ends the process with the code of the command that was run.
type childExit struct{ code int }

func (e *childExit) Error() string { return fmt.Sprintf("the command ended with %d", e.code) }

// runOptions are the flags of run.
type runOptions struct {
	creds string
	ttl   string
	env   []string
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	cmd := a.local("run --creds ENGINE/ROLE [--env NAME=FIELD] -- COMMAND [ARGUMENT...]", "run a command with a credential of its own", -1,
		func(ctx context.Context, args []string) error {
			if len(args) == 0 || o.creds == "" {
				return invalid("run: write: scaivault run --creds ENGINE/ROLE -- COMMAND")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.run(ctx, c, o, args)
		})
	cmd.Long = `Make a credential, run a command that finds it in its environment, renew it while
the command runs, and revoke it when the command has ended, or when run itself is
told to end. The command's exit code is passed on, and signals are passed to it.

For PostgreSQL the command finds PGUSER, PGPASSWORD, PGHOST, PGPORT, PGDATABASE and
PGSSLMODE, as psql, pg_dump and most drivers expect; host, port and database only if
the caller may read the engine. For MySQL and MariaDB it is MYSQL_PWD, and if the
caller may read the engine MYSQL_HOST, MYSQL_TCP_PORT, which their programs read, too,
MYSQL_USER and MYSQL_DATABASE, which are for the command: mysql -u "$MYSQL_USER". For
Redis it is REDISCLI_AUTH, which redis-cli reads, and REDIS_USERNAME, REDIS_PASSWORD,
REDIS_HOST, REDIS_PORT and REDIS_TLS, if the caller may read the engine at all. For
MongoDB it is MONGODB_URI, as mongosh and all drivers take it, if the caller may read
the engine. For AWS it is AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
which is empty for an IAM user, and AWS_REGION if the caller may read the engine. For
Google Cloud it is GOOGLE_APPLICATION_CREDENTIALS, which libraries and Terraform read, and
CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE, which gcloud reads, both the path of a file with
the key, which only this user may read and which is removed when the command has ended;
for a token CLOUDSDK_AUTH_ACCESS_TOKEN, which gcloud reads, and GOOGLE_OAUTH_ACCESS_TOKEN,
which Terraform reads. Another login to Google Cloud in the environment is hidden from the
command. For Azure it is AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, which
libraries and kubelogin read, and the same with ARM_, which Terraform reads; the Azure CLI
reads none: scaivault az.

Who may see the environment of the command sees its password: root, and the same user.
With --env the command finds these names only:

  --env DB_USER=username --env DB_PASS=password --env DB_HOST=host
  --env 'DATABASE_URL=mysql://{{username}}:{{password|url}}@{{host}}:{{port}}/app'

What has {{FIELD}} in it is a text, in which |url encodes a field for a URL. The fields
are those of the credential, host, port, database, sslmode, uri (MongoDB), region (AWS),
key_file (the path of a service account's key) and lease_id.
The command does not find the token that run itself uses.`
	cmd.Example = `  scaivault run --creds support-db/readonly -- psql -c 'SELECT count(*) FROM tickets'`
	flags := cmd.Flags()
	flags.StringVar(&o.creds, "creds", "", "engine and role of the credential")
	flags.StringVar(&o.ttl, "ttl", "", "its life between renewals; 15m when absent")
	flags.StringArrayVar(&o.env, "env", nil, "NAME=FIELD or NAME=TEXT with {{FIELD}} in it: name a variable yourself; may be repeated")
	flags.SetInterspersed(false) // what follows the command is the command's
	a.completeFlag(cmd, "creds", credNames)
	return cmd
}

// run is the life of one command: credential, command, revocation. From its
// first line on no signal that can be caught ends the process before the
// credential is given back.
func (a *app) run(ctx context.Context, c *client.Client, o runOptions, args []string) error {
	signals, release := catchSignals()
	defer release()

	mapping, err := parseEnv(o.env)
	if err != nil {
		return err
	}
	path, err := a.find(args[0])
	if err != nil {
		return err
	}
	lease, err := obtain(ctx, c, o.creds, o.ttl, client.GenerateOptions{TTL: runTTL, Metadata: map[string]string{"via": "scaivault run"}})
	if err != nil {
		return err
	}
	defer a.giveBack(lease)

	found := connectionOf(ctx, c, lease)
	remove, err := found.keyFile()
	if err != nil {
		return err
	}
	defer remove()
	variables, err := found.environment(mapping)
	if err != nil {
		return err
	}
	go a.keepAlive(ctx, lease)
	environ := a.childEnviron()
	if len(mapping) == 0 {
		environ = without(environ, found.rivals())
	}
	return a.attend(signals, a.child(path, args, append(environ, variables...)))
}

// catchSignals keeps signals from ending this process until release is called.
func catchSignals() (signals chan os.Signal, release func()) {
	signals = make(chan os.Signal, 16)
	signal.Notify(signals, passed()...)
	return signals, func() { signal.Stop(signals) }
}

// find looks for a program in PATH. That there is none is what a shell says of it.
func (a *app) find(name string) (path string, err error) {
	if path, err = exec.LookPath(name); err != nil {
		a.say("run %s: %v", name, err)
		return "", &childExit{code: 127}
	}
	return path, nil
}

// obtain makes a credential with the short life of the options. A role with a
// shorter maximum decides, unless a life was asked for by name.
func obtain(ctx context.Context, c *client.Client, creds, ttl string, options client.GenerateOptions) (*client.Lease, error) {
	engine, role, ok := strings.Cut(creds, "/")
	if !ok || engine == "" || role == "" || strings.Contains(role, "/") {
		return nil, invalid("make a credential: %q is not ENGINE/ROLE", creds)
	}
	asked, err := durationFlag("ttl", ttl)
	if err != nil {
		return nil, err
	}
	if asked != nil {
		options.TTL = asked.Std()
	}
	lease, err := c.Generate(ctx, engine, role, options)
	if errors.Is(err, client.InvalidDuration) && asked == nil {
		options.TTL = 0
		lease, err = c.Generate(ctx, engine, role, options)
	}
	return lease, err
}

// child is a command that has the input and output of this process.
func (a *app) child(path string, args, environ []string) *exec.Cmd {
	return &exec.Cmd{Path: path, Args: args, Env: environ, Stdin: a.In, Stdout: a.Out, Stderr: a.Err}
}

// attend runs a command to its end, passes signals to it, and answers its exit code as an error.
func (a *app) attend(signals <-chan os.Signal, child *exec.Cmd) error {
	select {
	case s := <-signals: // before there is a command to pass it to
		return &childExit{code: signalCode(s)}
	default:
	}
	if err := child.Start(); err != nil {
		a.say("run %s: %v", child.Args[0], err)
		return &childExit{code: 126}
	}
	done := make(chan struct{})
	go a.passSignals(child.Process, signals, done)
	err := child.Wait()
	close(done)
	return childResult(child, err)
}

// keepAlive renews while the command runs and says when that cannot go on.
func (a *app) keepAlive(ctx context.Context, lease *client.Lease) {
	err := lease.KeepAlive(ctx)
	switch {
	case err == nil:
	case errors.Is(err, client.MaxTTLReached), errors.Is(err, client.NotRenewable):
		a.say("the credential dies at %s and cannot be renewed; start the command again before then", text(lease.Expires()))
	default:
		a.say("renew the credential: %v", err)
	}
}

// giveBack revokes the credential, also after the run was cancelled. Signals are
// still caught meanwhile.
func (a *app) giveBack(lease *client.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), runRevokeTime)
	defer cancel()
	if err := lease.Close(ctx); err != nil {
		a.say("revoke the credential: %v", err)
		a.say("hint: it dies by itself at %s; sooner with: scaivault dynamic leases revoke %s", text(lease.Expires()), lease.ID)
	}
}

// passed are the signals that a command may be sent.
func passed() []os.Signal {
	return []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE,
	}
}

// passSignals hands signals on. What is typed at a terminal (Ctrl-C, Ctrl-\)
// reaches the command by itself, for it is in the same process group: it is not
// sent twice.
func (a *app) passSignals(child *os.Process, signals <-chan os.Signal, done <-chan struct{}) {
	stdin, ok := a.In.(*os.File)
	terminal := ok && term.IsTerminal(int(stdin.Fd()))
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			typed := s == syscall.SIGINT || s == syscall.SIGQUIT
			if s == syscall.SIGPIPE || typed && terminal {
				continue
			}
			_ = child.Signal(s) // it may have ended just now
		}
	}
}

// childResult is the command's exit code, or 128 and the signal that ended it, as
// in a shell.
func childResult(child *exec.Cmd, err error) error {
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return fmt.Errorf("run %s: %w", child.Args[0], err)
	}
	if status, ok := child.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &childExit{code: signalCode(status.Signal())}
	}
	if code := child.ProcessState.ExitCode(); code != 0 {
		return &childExit{code: code}
	}
	return nil
}

func signalCode(s os.Signal) int {
	if number, ok := s.(syscall.Signal); ok {
		return 128 + int(number)
	}
	return exitGeneral
}

// childEnviron is this process's environment without what it logs in with.
func (a *app) childEnviron() []string {
	return without(a.Environ, []string{"SCAIVAULT_TOKEN", "SCAIVAULT_CLIENT_SECRET"})
}

// without is an environment that lacks some variables.
func without(environ, names []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(names, name)
	})
}
