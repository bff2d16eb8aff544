// Package postgres is the shared store: one PostgreSQL database, any number of nodes, all active.
//
// Each node has one committer, a goroutine that takes all that waits, runs it in one transaction
// and shares one flush among it. Nodes meet in the database: at advisory locks (intents and
// fences), at the lock of the configuration, at rows that both change, and there at uniqueness.
// Where they do, one of them begins its transaction anew; so a function may run more than once.
// The clock is the database's, one value for a transaction.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
)

const (
	// readers is how many snapshots of a node can be read at once.
	readers = 8
	// readTime bounds a read: a database that does not answer is an error, not a wait.
	readTime = 10 * time.Second
	// heedTime bounds how long a change of the configuration waits for the other nodes.
	heedTime  = time.Second
	heedEvery = 5 * time.Millisecond
)

// Config says where the store is.
type Config struct {
	// URL of the database, postgres://…; PostgreSQL 14 or newer. It may hold a password.
	URL string
	// Dir is the node's own data folder; it is made (0700) when absent, and holds the node's id.
	Dir string
	// Chain may be nil when its key is itself kept in the store: SetChain gives it later.
	Chain  store.Chain
	Logger *slog.Logger // nil: none
	// Restored opens a store whose restore is not finished, for who finishes it.
	Restored bool

	importing bool
}

// Store is an open shared store, as one node.
type Store struct {
	folder    *folder.Folder
	pool      *pgxpool.Pool
	committer *committer
	watch     *watcher
	closed    chan struct{}
	close     func() error
	importing *pgx.Conn // while it has the lock of an import

	node         string
	epoch        int64
	installation string

	view   *view
	recent recent
	chain  atomic.Pointer[store.Chain]
}

var _ store.Store = (*Store)(nil)

// Open opens the store in the database, makes it where there is none, migrates its schema and
// begins a new epoch of the node. It fails when another process has the folder, the schema is of a
// newer release, or the database cannot be reached.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	poolCfg, err := poolConfig(cfg.URL)
	if err != nil {
		return nil, err
	}
	if clearText(poolCfg.ConnConfig) {
		cfg.Logger.Warn("the connection to the database may be unencrypted: say sslmode=verify-full in DATABASE_URL")
	}
	f, node, err := openFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{folder: f, node: node, view: newView(), closed: make(chan struct{})}
	s.close = sync.OnceValue(s.shut)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if cfg.Chain != nil {
		s.SetChain(cfg.Chain)
	}
	if err := check(ctx, poolCfg.ConnConfig); err != nil {
		return nil, err
	}
	if err := migrate(ctx, poolCfg.ConnConfig); err != nil {
		return nil, err
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, poolCfg); err != nil {
		return nil, fmt.Errorf("open store: %w", reason(err))
	}
	enter := s.enter
	if cfg.importing {
		enter = func(ctx context.Context, _ bool) error { return s.begin(ctx) }
	}
	if err := enter(ctx, cfg.Restored); errors.Is(err, store.ErrRestoring) || errors.Is(err, store.ErrNotEmpty) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("open store: begin epoch: %w", reason(err))
	}
	if err := s.Read(ctx, func(store.Reader) error { return nil }); err != nil { // which reads the configuration
		return nil, fmt.Errorf("open store: read the configuration: %w", errors.Unwrap(err))
	}
	s.committer, s.watch = newCommitter(s, cfg.Logger), newWatcher(s, cfg.Logger)
	return s, nil
}

// check refuses a database that cannot hold what is stored.
func check(ctx context.Context, cfg *pgx.ConnConfig) error {
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open store (DATABASE_URL): %w", reason(err))
	}
	defer c.Close(ctx)
	var version int
	var encoding string
	err = c.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')").Scan(&version, &encoding)
	switch {
	case err != nil:
		return fmt.Errorf("open store: %w", reason(err))
	case version < 140000:
		return errors.New("open store (DATABASE_URL): PostgreSQL 14 or newer is needed")
	case encoding != "UTF8":
		return fmt.Errorf("open store (DATABASE_URL): the database's encoding is %s; make one with ENCODING 'UTF8'", encoding)
	}
	return nil
}

// enter names the installation where the store is new, and begins an epoch of the node. What the
// node's former process has under way is over then: its transactions hold the same row's lock.
func (s *Store) enter(ctx context.Context, restored bool) error {
	_, installation, _ := strings.Cut(ident.New("i"), "_")
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if unfinished, err := isUnfinished(ctx, tx); err != nil {
			return err
		} else if unfinished && !restored {
			return store.ErrRestoring
		}
		if _, err := tx.Exec(ctx, "INSERT INTO store_state (installation) VALUES ($1) ON CONFLICT (one) DO NOTHING", installation); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "SELECT installation FROM store_state").Scan(&s.installation); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `INSERT INTO nodes (id, epoch) VALUES ($1, 1)
			ON CONFLICT (id) DO UPDATE SET epoch = nodes.epoch + 1 RETURNING epoch`, s.node).Scan(&s.epoch)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO chains (node) VALUES ($1) ON CONFLICT (node) DO NOTHING", s.node); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO beats (node, epoch, at, rev) VALUES ($1, $2, `+clock+`, 0)
			ON CONFLICT (node) DO UPDATE SET epoch = excluded.epoch, at = excluded.at, rev = 0`, s.node, s.epoch)
		return err
	})
}

// channel is what nodes tell each other of changed configuration on.
func (s *Store) channel() string { return "scaivault_" + s.installation }

// SetChain gives the audit chain's MAC. It comes before the first Audit, which fails without, and
// is the same for the whole life of the store, or the chain breaks.
func (s *Store) SetChain(chain store.Chain) { s.chain.Store(&chain) }

// Write runs fn in a transaction, durable when it returns; see [store.Store].
func (s *Store) Write(ctx context.Context, fn func(tx store.Tx) error) error {
	return s.write(ctx, &commit.Request{Fn: fn})
}

// WriteRelaxed is Write whose flush to disk may lag; see [store.Store].
func (s *Store) WriteRelaxed(ctx context.Context, fn func(tx store.Tx) error) error {
	return s.write(ctx, &commit.Request{Fn: fn, Relaxed: true})
}

func (s *Store) write(ctx context.Context, r *commit.Request) error {
	err := s.committer.queue.Write(ctx, r)
	if err == nil && r.Rev > 0 {
		s.heed(ctx, r.Rev)
	}
	return err
}

// heed waits until every node that lives goes by the configuration, or for a second. No decision
// rests on it, since each is compared with the revision; but who changed something and then asks
// another node finds it there at once.
func (s *Store) heed(ctx context.Context, rev int64) {
	ctx, cancel := context.WithTimeout(ctx, heedTime)
	defer cancel()
	for {
		var behind bool
		err := s.pool.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM beats WHERE node <> $1 AND rev < $2 AND at > "+clock+" - $3)",
			s.node, rev, silence.Microseconds()).Scan(&behind)
		if err != nil || !behind {
			return
		}
		select {
		case <-time.After(heedEvery):
		case <-ctx.Done():
			return
		}
	}
}

// Read runs fn on a snapshot; see [store.Store]. It takes one of few connections: a Read within a
// Read may wait until it fails.
func (s *Store) Read(ctx context.Context, fn func(r store.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.closed:
		return commit.ErrClosed()
	default:
	}
	bounded, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	return s.read(ctx, bounded, fn, true)
}

// read runs fn once; again on a new connection where the pool's was one that a restart of the
// database left.
func (s *Store) read(ctx, bounded context.Context, fn func(r store.Reader) error, again bool) error {
	c, err := s.pool.Acquire(bounded)
	if err != nil {
		return s.readFailed(ctx, err)
	}
	defer c.Release() // which throws a broken one away
	session := &session{ctx: bounded, conn: c.Conn()}
	r, err := s.snapshot(session)
	if err != nil {
		if again && session.failed != nil && c.Conn().IsClosed() && bounded.Err() == nil {
			return s.read(ctx, bounded, fn, false)
		}
		return s.readFailed(ctx, err)
	}
	err = fn(r)
	if rollback(bounded, c.Conn()) != nil && err == nil && session.failed != nil {
		return s.readFailed(ctx, session.failed)
	}
	return err
}

// readFailed tells a caller that gave up from a database that did not answer.
func (s *Store) readFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if known := (*fault.Error)(nil); errors.As(err, &known) {
		return err
	}
	return unavailable(err)
}

// Config is the configuration that this node goes by; see [store.Store]. Another node's change is
// in it before any function of a later Write or Read runs.
func (s *Store) Config() *store.Config { return s.view.config.Load() }

// Node is the id that this node was given with its data folder.
func (s *Store) Node() string { return s.node }

// Epoch counts how often this node opened the store.
func (s *Store) Epoch() int64 { return s.epoch }

// Installation is the id that the store was given when it was made.
func (s *Store) Installation() string { return s.installation }

// Ping writes a row: a database that became read-only, or is gone, is found out.
func (s *Store) Ping(ctx context.Context) error {
	return s.WriteRelaxed(ctx, func(st store.Tx) error {
		t := st.(*tx)
		return t.write("UPDATE nodes SET pinged_at = $2 WHERE id = $1", t.node, micros(t.now))
	})
}

// Close waits for what is being committed and read, and lets other nodes take over at once. Safe
// to call twice.
func (s *Store) Close() error { return s.close() }

func (s *Store) shut() error {
	close(s.closed)
	if s.committer != nil {
		s.committer.queue.Close()
		s.watch.silence()
	}
	if s.importing != nil {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.importing.Close(closing)
	}
	if s.pool != nil {
		s.pool.Close()
	}
	return s.folder.Close()
}
