package redis

import (
	"context"
	"strings"
	"sync"
	"time"
)

// node is one server of the source, known by its address.
type node struct {
	address  string
	patience time.Duration // for one save
	pool     *pool
	saver    saver

	mu       sync.Mutex
	failedAt time.Time // when it last could not be reached
	failed   error
}

// with runs f with a connection to the node.
func (n *node) with(ctx context.Context, l lane, f func(*conn) error) error {
	c, err := n.pool.take(ctx, l)
	if err != nil {
		return err
	}
	defer n.pool.put(c, l)
	return f(c)
}

// node finds or makes the node of an address.
func (e *Engine) node(address string) *node {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.nodes[address]
	if n == nil {
		n = &node{address: address, patience: e.config.OperationTimeout.Std()}
		n.pool = newPool(*e.config.MaxOpenConnections, func(ctx context.Context) (*conn, error) {
			e.mu.Lock()
			as := e.root
			e.mu.Unlock()
			return e.connector.connect(ctx, address, as)
		})
		e.nodes[address] = n
	}
	return n
}

// information reads sections of INFO.
func information(value any) map[string]string {
	fields := map[string]string{}
	for line := range strings.SplitSeq(text(value), "\n") {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = v
		}
	}
	return fields
}

// outcomeOf is what became of something on one node.
type outcomeOf struct {
	member
	err error
}

// onEach does something on all nodes at once.
func onEach(members []member, do func(m member) error) []outcomeOf {
	outcomes := make([]outcomeOf, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		outcomes[i].member = m
		if m.err != nil {
			outcomes[i].err = m.err
			continue
		}
		wg.Go(func() { outcomes[i].err = do(m) })
	}
	wg.Wait()
	return outcomes
}
