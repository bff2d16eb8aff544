package redis

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// node is one server of the source, known by its address.
type node struct {
	address  string
	patience time.Duration // for one save
	pool     *engine.Pool[*conn]
	saver    saver

	mu       sync.Mutex
	failedAt time.Time // when it last could not be reached
	failed   error
}

// node finds or makes the node of an address.
func (e *Engine) node(address string) *node {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.nodes[address]
	if n == nil {
		n = &node{address: address, patience: e.config.OperationTimeout.Std()}
		n.pool = engine.NewPool(*e.config.MaxOpenConnections, e.config.ConnectTimeout.Std(), func(ctx context.Context) (*conn, error) {
			e.mu.Lock()
			as := e.root
			e.mu.Unlock()
			c, err := e.connector.connect(ctx, address, as)
			if err == nil && e.alone() {
				err = e.recognise(ctx, c)
			}
			return c, err
		})
		e.nodes[address] = n
	}
	return n
}

// alone tells a source of one server. Of several, the survey tells the new ones.
func (e *Engine) alone() bool {
	return len(e.config.target.hosts) == 1 && e.config.target.sentinel == "" && !e.isCluster()
}

// recognise closes a connection that leads to another server than the one that
// the engine was opened on.
func (e *Engine) recognise(ctx context.Context, c *conn) error {
	if e.marker == "" {
		return nil
	}
	answer, err := c.do(ctx, "ACL", "GETUSER", e.marker)
	if err != nil {
		c.close()
		return connectError(ctx, err)
	}
	if _, there := readUser(e.marker, answer); !there {
		c.close()
		return anotherServer(e.marker)
	}
	return nil
}

func anotherServer(marker string) error {
	return wrongServer("look at the source: it is not the server that the engine was opened on: it has no user "+marker, nil)
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

// absent tells whether the node was not there to say yes or no: it could not be
// asked before, or did not answer now.
func (o outcomeOf) absent() bool { return o.member.err != nil || away(o.err) }

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

// version is a server's. Valkey tells the version of Redis that it is like.
type version struct{ major, minor int }

// oldest is the first whose users say which channels they may use.
var oldest = version{6, 2}

func (v version) before(other version) bool {
	return v.major < other.major || v.major == other.major && v.minor < other.minor
}

func parseVersion(text string) version {
	parts := strings.SplitN(text, ".", 3)
	var v version
	if len(parts) > 1 {
		v.major, _ = strconv.Atoi(parts[0])
		v.minor, _ = strconv.Atoi(parts[1])
	}
	return v
}
