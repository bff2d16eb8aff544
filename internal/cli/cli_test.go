package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/cli"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestMain makes this binary also the commands that the scripts run.
func TestMain(m *testing.M) {
	testscript.Main(withDatabases{m}, map[string]func(){
		"scaivault": func() {
			os.Exit(cli.Main(context.Background(), cli.Process{
				Args: os.Args[1:], Environ: os.Environ(), In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
			}))
		},
		"psql": psql,
	})
}

type withDatabases struct{ m *testing.M }

func (w withDatabases) Run() int { return pgtest.Main(w.m) }

// psql runs one query by the PG… variables and prints the rows.
func psql() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "")
	if err == nil {
		defer conn.Close(ctx)
		results, failed := conn.PgConn().Exec(ctx, os.Args[1]).ReadAll()
		err = failed
		for _, r := range results {
			for _, row := range r.Rows {
				fmt.Printf("%s\n", row[0])
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "psql:", err)
		os.Exit(2)
	}
}

// TestScripts runs testdata/*.txtar, each against a server and a database of its
// own. The scripts are the documentation of the command line.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: func(e *testscript.Env) error { return setup(t, e) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"capture":   capture,
			"make-role": makeRole,
			"waitfile":  waitFile,
		},
		RequireExplicitExec: true,
	})
}

// setup starts a server and tells the script where it and its source are.
func setup(t *testing.T, e *testscript.Env) error {
	pg := pgtest.Shared(t, 17)
	db := pg.CreateDB(t)
	root, password := pg.NewRoot(t, pgtest.CreateRole)
	pg.ExecIn(t, db, `CREATE TABLE tickets AS SELECT generate_series(1, 3) AS id;
		GRANT USAGE ON SCHEMA public TO `+root+` WITH GRANT OPTION; GRANT SELECT ON tickets TO `+root+` WITH GRANT OPTION`)

	c, err := config.Load(func(name string) (string, bool) {
		value := map[string]string{
			"DATA_DIR": filepath.Join(e.WorkDir, ".vault"), "BIND_ADDRESS": "127.0.0.1:0", "METRICS_ADDRESS": "off", "SCAIVAULT_RATE_LIMITS": "off",
		}[name]
		return value, value != ""
	})
	if err != nil {
		return err
	}
	n, err := node.Start(t.Context(), c, node.Options{Logger: slog.New(slog.DiscardHandler), Dev: true})
	if err != nil {
		return err
	}
	e.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shut the server down: %v", err)
		}
	})
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("SCAIVAULT_URL", n.URL())
	e.Setenv("SCAIVAULT_TOKEN", n.Token().Reveal())
	e.Setenv("PG_PORT", strconv.Itoa(pg.Port))
	e.Setenv("PG_DATABASE", db)
	e.Setenv("ROOT_USER", root)
	e.Setenv("ROOT_PASSWORD", password)
	return nil
}

// capture puts what a pattern's group matches in the last output into a variable:
//
//	capture NAME PATTERN
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME PATTERN")
	}
	match := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(match) != 2 {
		ts.Fatalf("nothing matches %s", args[1])
	}
	ts.Setenv(args[0], match[1])
}

// waitFile waits until a file is there.
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile FILE")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waited in vain for %s", args[0])
		}
	}
}

// makeRole makes the engine support-db with the role readonly, for scripts that
// are about something else.
func makeRole(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: make-role [MAX_TTL]")
	}
	ctx := context.Background()
	c, err := client.New(client.Config{URL: ts.Getenv("SCAIVAULT_URL"), Token: ts.Getenv("SCAIVAULT_TOKEN")})
	ts.Check(err)
	_, err = c.WriteSecret(ctx, "infra/pg/root", api.SecretWrite{Data: map[string]json.RawMessage{
		"username": json.RawMessage(strconv.Quote(ts.Getenv("ROOT_USER"))),
		"password": json.RawMessage(strconv.Quote(ts.Getenv("ROOT_PASSWORD"))),
	}})
	ts.Check(err)
	p, err := c.CreatePolicy(ctx, api.PolicyRequest{Name: "pg-root", Rules: []api.PolicyRule{
		{PathPattern: "infra/pg/root", Permissions: []api.Permission{"read"}},
	}})
	ts.Check(err)
	_, err = c.BindPolicy(ctx, p.ID, api.BindingRequest{IdentityType: "system", IdentityID: "dynamic:support-db"})
	ts.Check(err)
	url := fmt.Sprintf("postgresql://{{username}}:{{password}}@127.0.0.1:%s/%s?sslmode=disable", ts.Getenv("PG_PORT"), ts.Getenv("PG_DATABASE"))
	_, err = c.CreateEngine(ctx, api.EngineRequest{Name: "support-db", Type: "database", Config: json.RawMessage(fmt.Sprintf(
		`{"plugin": "postgresql", "connection_url": %q, "root_credentials_path": "infra/pg/root"}`, url))})
	ts.Check(err)
	role := client.Document{"name": "readonly", "privileges": []string{"USAGE ON SCHEMA public", "SELECT ON TABLE public.tickets"}}
	if len(args) == 1 {
		role["default_ttl"], role["max_ttl"] = args[0], args[0]
	}
	_, err = c.CreateRole(ctx, "support-db", role)
	ts.Check(err)
}

// Every command says in its help what it is for, and is named in no capitals.
func TestEveryCommandExplainsItself(t *testing.T) {
	t.Parallel()
	var out, complaints strings.Builder
	for _, args := range [][]string{
		{"--help"}, {"dynamic", "--help"}, {"dynamic", "engines", "--help"}, {"dynamic", "roles", "--help"}, {"dynamic", "leases", "--help"},
		{"secrets", "--help"}, {"policies", "--help"}, {"auth", "--help"}, {"audit", "--help"}, {"config", "--help"}, {"run", "--help"}, {"ssh", "--help"}, {"az", "--help"}, {"aws", "--help"}, {"gcp", "--help"}, {"ssh-host", "--help"},
		{"server", "--help"}, {"dev", "--help"}, {"bootstrap", "--help"},
	} {
		out.Reset()
		if code := cli.Main(t.Context(), cli.Process{Args: args, Out: &out, Err: &complaints, In: strings.NewReader("")}); code != 0 || out.Len() < 100 {
			t.Errorf("%v ended with %d and wrote:\n%s%s", args, code, &out, &complaints)
		}
	}
}
