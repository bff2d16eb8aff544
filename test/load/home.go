package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/test/load/fill"
	"github.com/scaivault/scaivault/test/pgtest"
)

// The stores that a server can run on.
const (
	embedded = "SQLite"
	shared   = "PostgreSQL"
)

// sharedMajor is the version of the database that a shared store lies in.
const sharedMajor = 17

// home is where a server keeps its state: a folder, and a database of its own for a shared store.
// It outlives the server, so that starts can be compared.
type home struct {
	kind     string
	dir      string
	database *pgtest.Server // nil for the embedded store
	token    string         // of the first administrator, once a server has run here
}

func (b *bench) newHome(ctx context.Context, kind string) (*home, error) {
	h := &home{kind: kind, dir: filepath.Join(b.dir, fmt.Sprintf("home-%d", time.Now().UnixNano()))}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return nil, err
	}
	if kind == shared {
		var err error
		if h.database, err = pgtest.Launch(ctx, pgtest.LaunchOptions{Major: sharedMajor, Fsync: true}); err != nil {
			return nil, err
		}
		err = h.sql(ctx, "postgres", "CREATE DATABASE scaivault")
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
}

func (h *home) close() error {
	err := os.RemoveAll(h.dir)
	if h.database != nil {
		err = errors.Join(err, h.database.Close())
	}
	return err
}

// env are the settings that say where the state lies.
func (h *home) env() []string {
	env := []string{"DATA_DIR=" + h.dir}
	if h.database != nil {
		env = append(env, "DATABASE_URL="+h.database.SuperURL("scaivault"))
	}
	return env
}

// fill puts leases there; no server runs meanwhile.
func (h *home) fill(ctx context.Context, p fill.Plan) error {
	settings := map[string]string{}
	for _, s := range h.env() {
		name, value, _ := strings.Cut(s, "=")
		settings[name] = value
	}
	c, err := config.Load(func(name string) (string, bool) { return settings[name], settings[name] != "" })
	if err != nil {
		return err
	}
	var st store.Store
	if st, err = node.OpenStore(ctx, c, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	return errors.Join(fill.Fill(ctx, st, p), st.Close())
}

// sql runs a statement in a database of the server that holds the shared store.
func (h *home) sql(ctx context.Context, database, text string) error {
	c, err := pgconn.Connect(ctx, h.database.SuperURL(database))
	if err != nil {
		return err
	}
	return errors.Join(send(ctx, c, text), c.Close(ctx))
}
