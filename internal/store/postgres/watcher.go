package postgres

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	beatEvery = time.Second
	beatTime  = 3 * time.Second // bounds one beat, which needs the database
)

// watcher gives the node's signs of life and brings its view of the configuration up to date when
// another node changes it.
type watcher struct {
	store  *Store
	log    *slog.Logger
	well   bool // the last beat was heard
	stop   context.CancelFunc
	exited chan struct{}
}

func newWatcher(s *Store, log *slog.Logger) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{store: s, log: log, well: true, stop: cancel, exited: make(chan struct{})}
	go w.run(ctx)
	return w
}

// run watches on one connection after the other, until the store is closed.
func (w *watcher) run(ctx context.Context) {
	defer close(w.exited)
	for ctx.Err() == nil {
		err := w.watch(ctx)
		if w.well && ctx.Err() == nil {
			w.well = false // said once for each loss
			w.log.Error("store: the database cannot be reached, trying again", "error", reason(err))
		}
		select {
		case <-time.After(beatEvery / 2):
		case <-ctx.Done():
		}
	}
}

// watch beats and listens until it fails or is stopped.
func (w *watcher) watch(ctx context.Context) error {
	acquiring, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	pooled, err := w.store.pool.Acquire(acquiring)
	if err != nil {
		return err
	}
	c := pooled.Hijack() // it listens: nobody else should have it afterwards
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(closing)
	}()
	if _, err := c.Exec(acquiring, "LISTEN "+pgx.Identifier{w.store.channel()}.Sanitize()); err != nil {
		return err
	}
	for {
		if err := w.beat(ctx, c); err != nil {
			return err
		}
		w.well = true
		waiting, cancel := context.WithTimeout(ctx, beatEvery)
		_, err := c.WaitForNotification(waiting)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && waiting.Err() == nil:
			return err
		}
	}
}

// beat says that the node lives, by the database's clock, and what configuration it goes by, which
// it brings up to date first.
func (w *watcher) beat(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	s := w.store
	session := &session{ctx: ctx, conn: c}
	var rev int64
	if _, err := session.one("SELECT config_rev FROM store_state", nil, &rev); err != nil {
		return session.failed
	}
	if err := s.view.catchUp(session, rev); err != nil {
		return err
	}
	return session.send(
		statement{sql: "SELECT set_config('synchronous_commit', 'off', false)"},
		statement{sql: "UPDATE beats SET at = " + clock + ", rev = $3 WHERE node = $1 AND epoch = $2",
			args: []any{s.node, s.epoch, s.view.config.Load().Rev}},
	)
}

// silence ends the node's claims at once, for the others to take over.
func (w *watcher) silence() {
	w.stop()
	<-w.exited
	ctx, cancel := context.WithTimeout(context.Background(), beatTime)
	defer cancel()
	if _, err := w.store.pool.Exec(ctx, "UPDATE beats SET at = 0 WHERE node = $1 AND epoch = $2", w.store.node, w.store.epoch); err != nil {
		w.log.Warn("store: the end of this node could not be announced; its work is taken over after seconds", "error", reason(err))
	}
}
