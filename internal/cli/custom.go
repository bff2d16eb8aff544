package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/internal/sandbox"
	"github.com/scaivault/scaivault/internal/statement"
)

func (a *app) customCommand() *cobra.Command {
	return group("custom", "write programs that make credentials", a.customCheck())
}

// trialFlags are what a program is tried with.
type trialFlags struct {
	parameters, role, request, root, user, timeout string
}

func (a *app) customCheck() *cobra.Command {
	var o trialFlags
	cmd := a.local("check PROGRAM", "try a program of the custom engine out, law by law", 1,
		func(ctx context.Context, args []string) error { return a.tryProgram(ctx, args[0], o) })
	cmd.Long = `Run a program as the custom engine would, on this machine and without a server:
confined, with the limits of the engine, by the rules for the operator's folder. It
makes credentials, looks at them, revokes them, twice and by their names alone, cuts
the program off in the middle, and revokes again. Give it a source to play with. What
the program writes on standard error is shown.`
	cmd.Example = `  scaivault custom check ./postgresql-tenants --root root.json \
    --parameters '{"host": "127.0.0.1", "database": "app"}' --role-parameters '{"tenant": "acme"}'`
	flags := cmd.Flags()
	flags.StringVar(&o.parameters, "parameters", "", "the engine's, as JSON")
	flags.StringVar(&o.role, "role-parameters", "", "the role's, as JSON")
	flags.StringVar(&o.request, "request-parameters", "", "the caller's, as JSON")
	flags.StringVar(&o.root, "root", "", "file with the fields of the root secret, as a JSON object; - for standard input")
	flags.StringVar(&o.user, "user", "", "user that it runs as, a name or UID:GID; needed by root")
	flags.StringVar(&o.timeout, "operation-timeout", "15s", "time of one run")
	return cmd
}

func (a *app) tryProgram(ctx context.Context, program string, o trialFlags) error {
	trial, done, err := a.trial(program, o)
	if err != nil {
		return err
	}
	defer done()
	var verdicts []custom.Verdict
	failed := 0
	err = trial.Run(ctx, func(v custom.Verdict) {
		verdicts = append(verdicts, v)
		if !v.Passed && !v.Skipped {
			failed++
		}
		if !a.json {
			a.showVerdict(v)
		}
	})
	if err != nil {
		return err
	}
	if a.json {
		if err := json.NewEncoder(a.Out).Encode(verdicts); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d laws are not kept", failed, len(verdicts))
	}
	return nil
}

func (a *app) showVerdict(v custom.Verdict) {
	switch {
	case v.Passed:
		fmt.Fprintf(a.Out, "pass  %s\n", v.Law)
	case v.Skipped:
		fmt.Fprintf(a.Out, "skip  %s: %s\n", v.Law, v.Why)
	default:
		fmt.Fprintf(a.Out, "FAIL  %s: %s\n", v.Law, v.Why)
	}
}

// trial puts together what a server would. done is called at the end.
func (a *app) trial(program string, o trialFlags) (trial custom.Trial, done func(), err error) {
	path, err := filepath.Abs(program)
	if err != nil {
		return trial, nil, err
	}
	config := map[string]any{"runtime": "exec", "command": filepath.Base(path), "operation_timeout": o.timeout}
	for name, text := range map[string]string{"--parameters": o.parameters, "--role-parameters": o.role, "--request-parameters": o.request} {
		if text != "" && !json.Valid([]byte(text)) {
			return trial, nil, invalid("%s is not JSON", name)
		}
	}
	if o.parameters != "" {
		config["parameters"] = json.RawMessage(o.parameters)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return trial, nil, err
	}
	root, err := a.rootFields(o.root)
	if err != nil {
		return trial, nil, err
	}
	box := sandbox.New(sandbox.Self())
	host, err := custom.NewHost(filepath.Dir(path), o.user, box)
	if err != nil {
		box.Close()
		return trial, nil, err
	}
	log := slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: slog.LevelInfo}))
	return custom.Trial{Type: custom.Type{Host: host}, Options: engine.Options{Config: raw, Root: root, Logger: log},
		Role: json.RawMessage(o.role), Request: json.RawMessage(o.request)}, box.Close, nil
}

// rootFields reads the fields of a root secret.
func (a *app) rootFields(file string) (map[string]statement.Secret, error) {
	if file == "" {
		return nil, nil
	}
	in := a.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read the root secret: %w", err)
		}
		defer f.Close()
		in = f
	}
	var fields map[string]string
	if err := json.NewDecoder(in).Decode(&fields); err != nil {
		return nil, invalid("--root: %w", errors.New("not a JSON object of strings"))
	}
	root := map[string]statement.Secret{}
	for name, value := range fields {
		root[name] = statement.Secret(value)
	}
	return root, nil
}
