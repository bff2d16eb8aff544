package lease_test

import (
	"context"
	"sync"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// mortal is a store that can be told to fail, and that does nothing more after its process died.
type mortal struct {
	store.Store
	mu     sync.Mutex
	dead   bool
	before func(kind string) error // a write fails with it and is not done
	after  func(kind string) error // a write fails with it although it is done
	ahead  time.Duration           // of its clock before the machine's
}

func lostStore() error { return fault.New(fault.ServiceUnavailable, "the store is lost") }

func (m *mortal) hook(fn func(string) error, kind string) error {
	if fn != nil {
		if err := fn(kind); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return lostStore()
	}
	return nil
}

func (m *mortal) around(kind string, write func() error) error {
	m.mu.Lock()
	before, after := m.before, m.after
	m.mu.Unlock()
	if err := m.hook(before, kind); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	return m.hook(after, kind)
}

func (m *mortal) Write(ctx context.Context, fn func(store.Tx) error) error {
	return m.around("write", func() error { return m.Store.Write(ctx, m.alive(fn)) })
}

func (m *mortal) WriteRelaxed(ctx context.Context, fn func(store.Tx) error) error {
	return m.around("relaxed", func() error { return m.Store.WriteRelaxed(ctx, m.alive(fn)) })
}

// alive keeps what was queued when the process died from being done.
func (m *mortal) alive(fn func(store.Tx) error) func(store.Tx) error {
	return func(tx store.Tx) error {
		m.mu.Lock()
		dead, ahead := m.dead, m.ahead
		m.mu.Unlock()
		if dead {
			return lostStore()
		}
		return fn(aheadTx{tx, ahead})
	}
}

func (m *mortal) Read(ctx context.Context, fn func(store.Reader) error) error {
	if err := m.hook(nil, "read"); err != nil {
		return err
	}
	m.mu.Lock()
	ahead := m.ahead
	m.mu.Unlock()
	return m.Store.Read(ctx, func(r store.Reader) error { return fn(aheadReader{r, ahead}) })
}
