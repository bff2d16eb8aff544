package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/test/load/fill"
)

// fillStore is `load fill`: it puts leases into the store of a server that does not run, or makes
// one. Where the store is, is said as to the server: DATA_DIR, SEAL_KEY_FILE, DATABASE_URL.
func fillStore(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("load fill", flag.ContinueOnError)
	n := flags.Int("n", 1_000_000, "how many leases")
	revoked := flags.Float64("revoked", 0.3, "share of them that is dead already")
	engine := flags.String("engine", "", "of this engine only; all in turn when absent")
	role := flags.String("role", "", "of this role only; all in turn when absent")
	due := flags.Duration("due", 0, "the living ones end in one second that begins so much from now; in a month to a year when absent")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := config.Load(os.LookupEnv)
	if err != nil {
		return err
	}
	st, err := node.OpenStore(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	begun := time.Now()
	p := fill.Plan{Leases: *n, Revoked: *revoked, Engine: *engine, Role: *role, Progress: func(done int) {
		took := time.Since(begun)
		fmt.Fprintf(os.Stderr, "%8d leases, %.0f/s\n", done, float64(done)/took.Seconds())
	}}
	if *due > 0 {
		p.Due = begun.Add(*due)
	}
	if err := fill.Fill(ctx, st, p); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d leases in %s\n", *n, time.Since(begun).Round(time.Millisecond))
	return nil
}
