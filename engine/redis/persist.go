package redis

import (
	"context"
	"strings"
	"sync"

	"github.com/scaivault/scaivault/engine"
)

// saver writes a node's users to its disk. Each save writes all of them, and the
// node does nothing else meanwhile, so callers share: one that waits for a save
// which began after its change needs none of its own.
type saver struct {
	mu      sync.Mutex
	running bool
	next    *save // which whoever comes now waits for

	byConfig bool // CONFIG REWRITE in place of ACL SAVE; written by whoever saves
}

type save struct {
	done chan struct{}
	err  error
}

// persist returns once what the node had when it was called is on its disk.
func (n *node) persist(ctx context.Context) error {
	s := &n.saver
	s.mu.Lock()
	if s.next == nil {
		s.next = &save{done: make(chan struct{})}
	}
	mine := s.next
	if !s.running {
		s.running = true
		go n.saveAll(context.WithoutCancel(ctx))
	}
	s.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return uncertain("save the users: the source did not answer in time", ctx.Err())
	}
}

// saveAll saves as long as somebody waits.
func (n *node) saveAll(ctx context.Context) {
	s := &n.saver
	for {
		s.mu.Lock()
		current := s.next
		s.next, s.running = nil, current != nil
		s.mu.Unlock()
		if current == nil {
			return
		}
		current.err = n.save(ctx)
		close(current.done)
	}
}

// save is one save. How the node keeps its users is found out by doing it.
func (n *node) save(ctx context.Context) error {
	const attempt = "save the users"
	ctx, cancel := context.WithTimeout(ctx, n.patience)
	defer cancel()
	return n.pool.With(ctx, engine.Revoking, func(c *conn) error {
		if !n.saver.byConfig {
			_, err := c.do(ctx, "ACL", "SAVE")
			if words, _ := said(err); !strings.Contains(words, "not configured to use an ACL file") {
				return mapped(attempt, err)
			}
		}
		_, err := c.do(ctx, "CONFIG", "REWRITE")
		switch words, _ := said(err); {
		case err == nil:
			n.saver.byConfig = true
			return nil
		case code(err) == codeNoPermission:
			return misconfigured(attempt+": "+n.address+" has no aclfile, so a user that is ended would be back after a restart: set aclfile there, or grant root +config|rewrite", nil)
		case strings.Contains(words, "without a config file"):
			return misconfigured(attempt+": "+n.address+" has neither an aclfile nor a configuration file, so a user that is ended would be back after a restart: set aclfile there", nil)
		}
		return mapped(attempt, err)
	})
}

// mapped is sentError for an error that may be none.
func mapped(attempt string, err error) error {
	if err == nil {
		return nil
	}
	return sentError(attempt, err)
}
