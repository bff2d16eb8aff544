// Package witness notices that a store is an older copy of itself: a backup or a snapshot that was
// put back, a replica that had not caught up. It keeps a counter, the generation, in two places: in
// the store, where it grows while something is written, and in a file outside, which holds the
// highest generation that this node knows to be durable. A store whose generation is lower than the
// file's has forgotten what it had acknowledged; it goes into quarantine, and this package ends that
// on an administrator's word.
//
// The store is always written first, and flushed, then the file. So a crash, a power cut or a full
// disk at any moment leaves a file that is behind, never ahead: no false alarm.
package witness

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	// every is how often what was written is witnessed, and so about how much an older copy may
	// lack before it is noticed.
	every    = 5 * time.Second
	stopTime = 2 * time.Second
	// metaKey is under what the store holds the generation that began with its last resumption, and,
	// with a slash and a node, what that node has reached since: a node that has lost nothing must not
	// move on what another is about to miss.
	metaKey = "generation"
	// leap is what the generation grows by when a quarantine ends: further than the nodes of one
	// store can be apart, so that none of their witnesses takes what is now the only copy for an
	// older one.
	leap = 1 << 32
)

// Identity is the witness's own, in the audit trail.
const Identity = "system:witness"

// Config of a Service.
type Config struct {
	Store store.Store
	Door  *access.Door
	File  string // of this node, outside the store
	// Resumed is called when a quarantine has ended: what is due can be done again.
	Resumed func()
	Logger  *slog.Logger
}

// Service witnesses one node's store. Safe for concurrent use.
type Service struct {
	store   store.Store
	door    *access.Door
	file    string
	resumed func()
	log     *slog.Logger

	mu    sync.Mutex
	noted mark  // what this node knows to be durable
	seq   int64 // of this node's audit chain when that was noted
	mute  bool  // a failure of the file was told already
}

// mark is a generation, the node that reached it, and when, by the store's clock.
type mark struct {
	Installation string    `json:"installation"`
	Node         string    `json:"node"`
	Generation   int64     `json:"generation"`
	At           time.Time `json:"at"`
}

// New makes the service of a store that was opened.
func New(c Config) *Service {
	return &Service{store: c.Store, door: c.Door, file: c.File, resumed: c.Resumed, log: c.Logger,
		noted: mark{Node: c.Store.Node()}}
}

// Start compares the store with what was witnessed before anything is done in its name, and begins
// a new generation.
func (s *Service) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, err := readFile(s.file)
	switch {
	case err != nil:
		s.log.Warn("the witness of the store's age cannot be used, a new one is made: an older copy of the store would not have been noticed",
			"file", s.file, "error", err)
	case seen.Installation != "" && seen.Installation != s.store.Installation():
		s.log.Warn("the witness of the store's age is of another installation, a new one is made: if this store should not be empty, stop the server and bring its data back",
			"file", s.file, "installation", seen.Installation)
	case seen.Node != "":
		s.noted = seen // of this node, or of the one whose place it takes
	}
	return s.note(ctx)
}

// Run witnesses what is written until ctx ends.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := s.Note(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("the store's generation could not be witnessed, trying again", "error", err)
		}
	}
}

// Stop witnesses the last of what was written, so that a copy which is put back while the server is
// stopped is noticed however young it is. A store that cannot be reached is not waited for long.
func (s *Service) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if err := s.Note(ctx); err != nil {
		s.log.Warn("the store's last generation could not be witnessed", "error", err)
	}
	return nil
}

// Note witnesses what was written since the last time, and finds out that the database behind a
// running node has become an older one.
func (s *Service) Note(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var now mark
	var seq int64
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		if now, err = stored(r, s.noted.Node); err != nil {
			return err
		}
		seq, err = s.head(r)
		return err
	})
	if err != nil || now.Generation >= s.noted.Generation && seq == s.seq {
		return err
	}
	return s.note(ctx)
}

// note lets the store begin a new generation and then, when that is durable, the file say so. A
// store that is older than what was noted goes into quarantine instead. In quarantine nothing is
// noted: what was known before is what the older copy is measured by.
func (s *Service) note(ctx context.Context) error {
	var next mark
	var seq int64
	var older string
	err := s.store.Write(ctx, func(tx store.Tx) error {
		next, seq, older = mark{}, 0, ""
		if quarantine.Active(s.store.Config()) {
			return nil
		}
		have, err := stored(tx, s.noted.Node)
		if err != nil {
			return err
		}
		if have.Generation < s.noted.Generation {
			older = s.older(have)
			return s.quarantine(tx, have, older)
		}
		if seq, err = s.head(tx); err != nil {
			return err
		}
		next = mark{Installation: s.store.Installation(), Node: s.store.Node(), Generation: have.Generation + 1, At: tx.Now()}
		return put(tx, metaKey+"/"+next.Node, next)
	})
	if err != nil {
		return err
	}
	if older != "" {
		s.log.Error("the store is an older copy: it is in quarantine until an administrator resumes it", "detail", older)
	}
	if next.Generation == 0 {
		return nil
	}
	s.noted, s.seq = next, seq
	err = writeFile(s.file, next)
	if err != nil && !s.mute {
		s.log.Error("the witness of the store's age could not be written: until it can, an older copy of the store may go unnoticed",
			"file", s.file, "error", err)
	}
	s.mute = err != nil
	return nil
}

// older tells how old the store is.
func (s *Service) older(have mark) string {
	return fmt.Sprintf("the store stands at generation %d%s, and node %s had reached generation %d of %s: what was written in between is missing",
		have.Generation, of(have.At), s.noted.Node, s.noted.Generation, s.noted.At.Format(time.RFC3339))
}

// quarantine puts the store, which has forgotten something, into quarantine.
func (s *Service) quarantine(tx store.Tx, have mark, detail string) error {
	now := tx.Now()
	state := quarantine.State{Active: true, Reason: quarantine.ReasonOlder, Detail: detail, Since: now, Restored: &now}
	if err := quarantine.Put(tx, &state); err != nil {
		return err
	}
	return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "system_quarantine", IdentityType: access.TypeSystem, IdentityID: Identity,
		SecretPath: Path, Success: true, ExtraData: map[string]any{"reason": state.Reason, "generation": have.Generation, "seen": s.noted.Generation}})
}

func of(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " of " + t.Format(time.RFC3339)
}

// head is how far this node's audit chain reaches: it grows with everything that is worth noting.
func (s *Service) head(r store.Reader) (seq int64, err error) {
	heads, err := r.AuditHeads()
	for _, h := range heads {
		if h.Node == s.store.Node() {
			seq = h.LastSeq
		}
	}
	return seq, err
}

// stored is the generation of a node that the store holds; 0 in a new one.
func stored(r store.Reader, node string) (last mark, err error) {
	for _, key := range []string{metaKey, metaKey + "/" + node} {
		raw, err := r.Meta(key)
		if err != nil {
			return last, err
		}
		var m mark
		if raw != nil {
			if err := json.Unmarshal(raw, &m); err != nil {
				return last, fmt.Errorf("read the store's generation: %w", err)
			}
		}
		if m.Generation > last.Generation {
			last = m
		}
	}
	return last, nil
}

func put(tx store.Tx, key string, m mark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return tx.PutMeta(key, raw)
}
