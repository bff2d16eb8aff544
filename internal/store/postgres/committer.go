package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaivault/scaivault/internal/store/commit"
)

const (
	// groupTime bounds how long a group is tried, probeTime the same while the database is gone,
	// and settleTime how long it is then asked whether a commit that was not answered has happened.
	groupTime  = 10 * time.Second
	probeTime  = 3 * time.Second
	settleTime = 10 * time.Second
	// usualTenants bounds whose locks a group takes because the one before did.
	usualTenants = 4
	// pause is the longest wait before a group that met another node's is run again.
	pause = 20 * time.Millisecond
)

// Why a transaction ends before its commit, and is begun anew.
var (
	errSpoiled  = errors.New("a function failed after it wrote")
	errConflict = errors.New("another node was faster")
	errNeedLock = errors.New("a lock is taken") // and is now waited for at the beginning
)

// errSuperseded means that a newer process runs under this node's id: nothing may be written.
var errSuperseded = errors.New("another process was started as this node; give each node a DATA_DIR of its own")

// committer runs what waits on this node, a group in one transaction.
type committer struct {
	store *Store
	log   *slog.Logger
	conn  *pgxpool.Conn // nil until the first group, and after a loss
	gone  bool          // the last group found no database
	queue *commit.Queue

	usual map[string]bool // tenants whose locks the last groups took; taken with the first message, shared
}

func newCommitter(s *Store, log *slog.Logger) *committer {
	m := &committer{store: s, log: log}
	m.queue = commit.NewQueue(m.commit, m.release)
	return m
}

// release gives the connection back; a broken one is thrown away there.
func (m *committer) release() {
	if m.conn != nil {
		m.conn.Release()
		m.conn = nil
	}
}

// commit runs a group and fills in its answers. If the database fails, nothing of the group has happened;
// only where it cannot be asked even afterwards, that is not known.
func (m *committer) commit(group []*commit.Request) {
	err := m.transact(group)
	if m.gone = err != nil; m.gone {
		m.log.Error("store: commit failed", "error", reason(err), "writes", len(group))
		for _, r := range group {
			r.Err, r.Rev = unavailable(err), 0
		}
	}
}

// transact tries the group until it is committed. A connection that broke is replaced once: the
// pool may have kept one that a restart of the database left.
func (m *committer) transact(group []*commit.Request) error {
	limit := groupTime
	if m.gone {
		limit = probeTime
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	a := attempt{committer: m, group: group}
	for lost := false; ; {
		err := a.run(ctx)
		var unanswered *unansweredError
		if errors.As(err, &unanswered) {
			happened, unknown := m.settle(unanswered)
			if unknown != nil {
				return unknown // run again it might happen twice
			}
			if err = errConflict; happened {
				a.publish()
				err = nil
			}
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errSuperseded):
			return err
		case errors.Is(err, errSpoiled), !a.careful && (refusesData(err) || sqlState(err) == uniqueViolation):
			a.careful = true
		case errors.Is(err, errNeedLock):
		case errors.Is(err, errConflict) || retriable(err):
			select {
			case <-time.After(rand.N(pause)): //nolint:gosec // to get out of step, no secret
			case <-ctx.Done():
			}
		case lost:
			return err
		default:
			lost = true
		}
		if ctx.Err() != nil {
			return fmt.Errorf("gave up after %s: %w", limit, reason(err))
		}
	}
}

const uniqueViolation = "23505"

// retriable tells whether the server undid the transaction because of others': it met them at a
// row (serialization, deadlock, a name that is unique), or they held a lock for too long.
func retriable(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01", "55P03", uniqueViolation:
		return true
	default:
		return false
	}
}

// unansweredError is a commit that was sent and not answered.
type unansweredError struct {
	commits int64 // the node's number once it has happened
	why     error
}

func (e *unansweredError) Error() string { return fmt.Sprintf("commit was not answered: %v", e.why) }

// settle finds out whether a commit has happened. The former transaction holds the lock of the
// node's row until its end, however late the server executes what lies in its socket, so that who
// has the lock knows.
func (m *committer) settle(u *unansweredError) (happened bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for {
		commits, err := m.commits(ctx)
		switch {
		case err == nil:
			return commits == u.commits, nil
		case ctx.Err() != nil || errors.Is(err, errSuperseded):
			return false, fmt.Errorf("whether the last commit has happened is not known: %w", reason(u.why))
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// commits is how many this process has made.
func (m *committer) commits(ctx context.Context) (n int64, err error) {
	m.release()
	if m.conn, err = m.store.pool.Acquire(ctx); err != nil {
		return 0, err
	}
	var epoch int64
	err = pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT commits, epoch FROM nodes WHERE id = $1 FOR NO KEY UPDATE", m.store.node).Scan(&n, &epoch)
	})
	if err == nil && epoch != m.store.epoch {
		err = errSuperseded // whose commits these are is not known
	}
	return n, err
}
