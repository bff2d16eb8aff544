package lease

import (
	"context"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// What is read of the store is in the agreed time, which decides about the lives of leases; what is
// said to an engine, or waited for, is in this process's (clock.Guard.Local); engines know how far
// their source's clock is from that.

// hearSources asks the sources what time it is, all at once: after a jump of the store's clock they
// are the evidence. One that is dead delays no other.
func (m *Manager) hearSources() {
	var wg sync.WaitGroup
	for _, o := range m.store.Config().List(store.DefaultTenant, store.KindEngine, "") {
		e, err := m.sources.EngineByID(m.store.Config(), o.Tenant, o.ID)
		if err != nil {
			continue
		}
		wg.Go(func() {
			h, err := m.sources.Acquire(m.ctx, e)
			if err != nil {
				return
			}
			defer h.Release()
			m.hear(e, h)
		})
	}
	wg.Wait()
}

// hear asks one source what time it is, where that is of use: to record how far its clock is from
// ours while all is well, or to judge a jump.
func (m *Manager) hear(e *source.Engine, h *source.Handle) {
	tells, ok := h.Engine.(engine.Clock)
	if !ok || !m.clock.Asks(e.ID) {
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, e.Config.OperationTimeout)
	defer cancel()
	asked := time.Now()
	now, err := tells.Now(ctx)
	if err == nil {
		err = m.clock.Heard(ctx, e.ID, now, asked)
	}
	if err != nil && m.ctx.Err() == nil {
		m.log.Warn("a source's clock could not be compared", "engine", e.Name, "reason", source.Reason(err))
	}
}

// settled is nil when the time is known, else says why nothing may be issued. Where it is not known, as after
// a pause, the engine's own source is asked at once, so that who comes first need not come again.
func (m *Manager) settled(ctx context.Context, e *source.Engine) error {
	unsettled := m.clock.Settled()
	if unsettled == nil {
		return nil
	}
	h, err := m.sources.Acquire(ctx, e)
	if err != nil {
		return unsettled
	}
	defer h.Release()
	m.hear(e, h)
	return m.clock.Settled()
}

// sometimeHear is hear beside the caller, who need not wait.
func (m *Manager) sometimeHear(e *source.Engine) {
	if !m.clock.Asks(e.ID) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	m.wg.Go(func() {
		h, err := m.sources.Acquire(m.ctx, e)
		if err != nil {
			return
		}
		defer h.Release()
		m.hear(e, h)
	})
}
