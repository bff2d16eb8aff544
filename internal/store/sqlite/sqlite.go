// Package sqlite is the embedded store: one SQLite database in a data folder, one node.
//
// One goroutine, the committer, owns the only connection that writes. It takes all that waits,
// runs it in one transaction and shares one flush to disk among it. Readers have connections of
// their own, each a snapshot, which under WAL never wait for the writer.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
	"github.com/scaivault/scaivault/internal/store/sqlite/vfs"
)

// readers is how many snapshots can be read at once: a few more than cores, since reads are short.
const readers = 4

// Config says where the store is.
type Config struct {
	// Dir is the data folder; it is made (0700) when absent. One process at a time has it.
	Dir string
	// Chain may be nil when its key is itself kept in the store: SetChain gives it later.
	Chain  store.Chain
	Logger *slog.Logger // nil: none
	// Disk stands before the files, for tests of disks that fail; nil: nothing does.
	Disk vfs.Layer
	// Restored opens a store whose restore is not finished, for who finishes it.
	Restored bool

	importing bool
}

// Store is an open embedded store.
type Store struct {
	disk      *disk
	vfs       *vfs.VFS
	folder    *folder.Folder
	committer *committer
	pool      chan *conn // for reading
	opened    int        // how many belong to the pool
	closed    chan struct{}
	close     func() error

	node         string
	epoch        int64
	installation string

	config atomic.Pointer[store.Config]
	chain  atomic.Pointer[store.Chain]
}

var _ store.Store = (*Store)(nil)

// Open opens the store in the folder, makes it where there is none, migrates its schema and begins
// a new epoch. It fails when another process has the folder or the schema is of a newer release.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	f, err := openFolder(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{folder: f, pool: make(chan *conn, readers), closed: make(chan struct{})}
	s.close = sync.OnceValue(s.shut)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if cfg.Chain != nil {
		s.SetChain(cfg.Chain)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}

	if s.disk, err = openDisk(ctx, f.Path(dataFile), cfg); err != nil {
		return nil, err
	}
	if s.vfs, err = vfs.Register(ident.New("vfs"), s.disk.layer); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	writer, err := s.connect(ctx, "cache_size(-8192)")
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.prepare(ctx, writer, cfg); err != nil {
		return nil, errors.Join(err, writer.close())
	}
	if s.committer, err = newCommitter(s, writer, cfg.Logger); err != nil {
		return nil, errors.Join(fmt.Errorf("read store: %w", err), writer.close())
	}
	for range readers {
		c, err := s.connect(ctx, "cache_size(-2048)", "query_only(1)")
		if err != nil {
			return nil, fmt.Errorf("open store for reading: %w", err)
		}
		s.pool <- c
		s.opened++
	}
	return s, nil
}

// prepare migrates the schema, names the installation and the node where the store is new, and
// begins an epoch. Migrations take the connection from its pool, so it is given back meanwhile.
func (s *Store) prepare(ctx context.Context, c *conn, cfg Config) error {
	if err := fold(ctx, c); err != nil {
		return err
	}
	if err := c.c.Close(); err != nil {
		return err
	}
	if err := migrate(ctx, c.db); err != nil {
		return err
	}
	var err error
	if c.c, err = c.db.Conn(ctx); err != nil {
		return err
	}
	if cfg.importing {
		return s.begin(c)
	}
	if !cfg.Restored {
		if err := refuseUnfinished(c); err != nil {
			return err
		}
	}
	if err := s.disk.sums.begin(s.disk.epoch + 1); err != nil {
		return err
	}
	_, installation, _ := strings.Cut(ident.New("i"), "_")
	_, err = c.one(`INSERT INTO store_state (one, installation, node, epoch) VALUES (1, ?, ?, 1)
		ON CONFLICT (one) DO UPDATE SET epoch = epoch + 1
		RETURNING installation, node, epoch`, []any{installation, ident.New("n")},
		&s.installation, &s.node, &s.epoch)
	if err != nil {
		return fmt.Errorf("begin epoch: %w", errors.Unwrap(err))
	}
	return nil
}

// fold puts what the WAL holds into the database, which is flushed, and empties the WAL. After a
// flush that failed the operating system may show what the disk does not have: read so, and written
// anew, it is certain again before anything is built upon it. On a full disk the WAL stays.
func fold(ctx context.Context, c *conn) error {
	var busy, frames, folded int
	return c.c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &folded)
}

// SetChain gives the audit chain's MAC. It comes before the first Audit, which fails without, and
// is the same for the whole life of the store, or the chain breaks.
func (s *Store) SetChain(chain store.Chain) { s.chain.Store(&chain) }

// Write runs fn in a transaction, durable when it returns; see [store.Store].
func (s *Store) Write(ctx context.Context, fn func(tx store.Tx) error) error {
	return s.committer.queue.Write(ctx, &commit.Request{Fn: fn})
}

// WriteRelaxed is Write whose flush to disk may lag; see [store.Store].
func (s *Store) WriteRelaxed(ctx context.Context, fn func(tx store.Tx) error) error {
	return s.committer.queue.Write(ctx, &commit.Request{Fn: fn, Relaxed: true})
}

// Read runs fn on a snapshot; see [store.Store]. It takes one of few connections: a Read within a
// Read may wait for ever.
func (s *Store) Read(ctx context.Context, fn func(r store.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var c *conn
	select {
	case c = <-s.pool:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return commit.ErrClosed()
	}
	defer func() { s.pool <- c }()
	defer c.rollback()
	if _, err := c.exec("BEGIN"); err != nil {
		return err
	}
	return fn(&reader{conn: c, node: s.node, epoch: s.epoch})
}

// Config is the configuration as of the last commit.
func (s *Store) Config() *store.Config { return s.config.Load() }

// Node is the id that this node was given with its data folder.
func (s *Store) Node() string { return s.node }

// Epoch counts how often the store was opened.
func (s *Store) Epoch() int64 { return s.epoch }

// Installation is the id that the store was given when it was made.
func (s *Store) Installation() string { return s.installation }

// Ping writes a row: a full disk or a folder that became read-only is found out. It also tells of
// damage that was met before.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.disk.well(); err != nil {
		return unavailable(err)
	}
	return s.WriteRelaxed(ctx, func(t store.Tx) error {
		return t.(*tx).write("UPDATE store_state SET pinged_at = ?", micros(time.Now()))
	})
}

// Failed tells, once, that a flush to disk has failed: nothing is acknowledged any more, and the
// process is to end and begin anew with what the disk then holds.
func (s *Store) Failed() <-chan error { return s.disk.ended }

// Close waits for what is being committed and read. Safe to call twice.
func (s *Store) Close() error { return s.close() }

func (s *Store) shut() error {
	var errs []error
	if s.committer != nil {
		s.committer.queue.Close()
		close(s.closed)
		for range s.opened {
			errs = append(errs, (<-s.pool).close())
		}
		errs = append(errs, s.committer.conn.close())
	}
	if s.vfs != nil {
		s.vfs.Close()
	}
	if s.disk != nil {
		errs = append(errs, s.disk.sums.close())
	}
	return errors.Join(append(errs, s.folder.Close())...)
}
