package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/node"
)

// shutdownTime is how long requests in flight may take to finish.
const shutdownTime = 60 * time.Second

func (a *app) serverCommand() *cobra.Command {
	var given settingFlags
	cmd := a.local("server [flags]", "run the server", 0,
		func(ctx context.Context, _ []string) error {
			c, err := a.loadConfig(given)
			if err != nil {
				return err
			}
			return a.serve(ctx, c, false, func(*node.Node) (func(), error) { return func() {}, nil })
		})
	cmd.Long = `Run the server until it is told to end (SIGTERM, Ctrl-C); requests in flight finish.

Each setting is a flag or the environment variable of the same name in capitals.
The first start of a store writes DATA_DIR/bootstrap-token, an administrator's token
that is erased at its first use: log in with
  scaivault auth login --url URL < DATA_DIR/bootstrap-token`
	given = registerSettings(cmd)
	return cmd
}

func (a *app) bootstrapCommand() *cobra.Command {
	var given settingFlags
	cmd := a.local("bootstrap [--data-dir DIR]", "make a new administrator's token, on the server's host", 0,
		func(ctx context.Context, _ []string) error {
			c, err := a.loadConfig(given)
			if err != nil {
				return err
			}
			path, err := node.Bootstrap(ctx, c, node.Options{Logger: a.logger(c)})
			if err != nil {
				return err
			}
			return a.show(map[string]string{"file": path}, func(*table) {
				fmt.Fprintln(a.Out, path)
				a.say("the token in this file works for 24 hours, and the file goes at its first use")
				a.say("hint: log in: scaivault auth login --url URL < %s", path)
			})
		})
	cmd.Long = `Make a new administrator's token and write it to DATA_DIR/bootstrap-token, for who
has lost every other. It asks the running server, or works on its store when none
runs; with the settings of the server.`
	given = registerSettings(cmd)
	return cmd
}

// settingFlags are the server's settings as given on the command line, by the
// names of the environment.
type settingFlags map[string]*string

func registerSettings(cmd *cobra.Command) settingFlags {
	flags := settingFlags{}
	for _, s := range config.Settings() {
		doc := s.Doc
		if s.Default != "" {
			doc += " (default " + s.Default + ")"
		}
		flags[s.Env] = cmd.Flags().String(s.Flag, "", doc)
	}
	return flags
}

// loadConfig takes each setting from its flag, else from the environment.
func (a *app) loadConfig(given settingFlags) (*config.Config, error) {
	c, err := config.Load(func(env string) (string, bool) {
		value := first(*given[env], a.env(env))
		return value, value != ""
	})
	if err != nil {
		return nil, invalid("%w", err)
	}
	return c, nil
}

// devFile is what dev tells programs that started it.
type devFile struct {
	URL     string `json:"url"`
	Token   string `json:"token"`
	DataDir string `json:"data_dir"`
	PID     int    `json:"pid"`
}

func (a *app) devCommand() *cobra.Command {
	var dir, address string
	cmd := a.local("dev [--data DIR] [--addr 127.0.0.1:0]", "run a server to try things with: NOT SAFE", 0,
		func(ctx context.Context, _ []string) error { return a.dev(ctx, dir, address) })
	cmd.Long = `Run a server to try things with, on loopback, until Ctrl-C. NOT SAFE: the key lies
beside the data, an administrator's token lies in a file, and nothing is encrypted
on the wire.

When it is ready it writes DIR/dev.json with its address and a fresh token, for
  scaivault config set --from DIR/dev.json
and removes it at the end. Started again on the same DIR it goes on with the same
data.`
	cmd.Flags().StringVar(&dir, "data", "", "folder of the data; a temporary one, removed at the end, when absent")
	cmd.Flags().StringVar(&address, "addr", "127.0.0.1:0", "loopback address to listen on; port 0 takes a free one")
	return cmd
}

func (a *app) dev(ctx context.Context, dir, address string) error {
	if dir == "" {
		temporary, err := os.MkdirTemp("", "scaivault-dev-")
		if err != nil {
			return fmt.Errorf("make a folder for the data: %w", err)
		}
		defer os.RemoveAll(temporary)
		dir = temporary
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the data: %w", err)
	}
	c, err := config.Load(a.devSetting(dir, address))
	if err != nil {
		return invalid("%w", err)
	}
	// Who waits for the file must not find that of a start before.
	file := filepath.Join(dir, "dev.json")
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the former dev.json: %w", err)
	}
	a.say("NOT SAFE: this server is for trying things only")
	return a.serve(ctx, c, true, func(n *node.Node) (func(), error) {
		text, err := json.MarshalIndent(devFile{URL: n.URL(), Token: n.Token().Reveal(), DataDir: dir, PID: os.Getpid()}, "", "  ")
		if err != nil {
			return nil, err
		}
		if err := folder.Replace(file, string(text)+"\n"); err != nil {
			return nil, fmt.Errorf("write dev.json: %w", err)
		}
		a.say("ready; to use it: scaivault config set --from %s", file)
		return func() { _ = os.Remove(file) }, nil
	})
}

// devSetting takes from the environment only what cannot make dev reach beyond
// its folder and the loopback, and what somebody wants to try: programs,
// scripts, and the identity of the host.
func (a *app) devSetting(dir, address string) func(env string) (string, bool) {
	return func(env string) (string, bool) {
		switch env {
		case "DATA_DIR":
			return dir, true
		case "BIND_ADDRESS":
			return address, true
		case "METRICS_ADDRESS":
			return a.devMetrics(), true
		case "LOG_FORMAT":
			return "text", true
		case "LOG_LEVEL", "SCAIVAULT_RATE_LIMITS", "LEASE_RETENTION", "AUDIT_RETENTION",
			"CUSTOM_PROGRAMS_DIR", "CUSTOM_PROGRAMS_USER", "CUSTOM_SCRIPT_HOSTS", "CUSTOM_SCRIPT_NETWORKS",
			"AMBIENT_AWS_SOURCE", "AMBIENT_AWS_ENGINES":
			value := a.env(env)
			return value, value != ""
		}
		return "", false
	}
}

// devMetrics is where dev shows its metrics: nowhere, unless the environment
// names a loopback address.
func (a *app) devMetrics() string {
	address := a.env("METRICS_ADDRESS")
	host, _, err := net.SplitHostPort(address)
	if ip, _ := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return "off"
	}
	return address
}

// serve runs a node until a signal or until it fails. ready is told when it
// serves, and answers what is to be done at the end. A second signal ends the
// process at once, as if the machine had failed: the next start recovers.
func (a *app) serve(ctx context.Context, c *config.Config, dev bool, ready func(*node.Node) (func(), error)) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	version := build(a.Version)
	n, err := node.Start(ctx, c, node.Options{
		Logger: a.logger(c), Version: version.Version, Commit: version.Commit, Engines: a.Engines, Dev: dev,
	})
	if err != nil {
		return err
	}
	done, err := ready(n)
	if err == nil {
		defer done()
		select {
		case <-ctx.Done():
		case err = <-n.Failed():
		}
	}
	stop()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return errors.Join(err, n.Shutdown(ending))
}

func (a *app) logger(c *config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(a.Err, options))
	}
	return slog.New(slog.NewJSONHandler(a.Err, options))
}
