package redis

import (
	"context"
	"strings"
	"sync"
	"time"
)

const (
	// surveyAge is how old the list of the nodes may be.
	surveyAge = time.Second
	// nodeRest is how long a node of several that could not be reached is taken
	// to be away, so that it does not hold up every operation.
	nodeRest = 2 * time.Second
)

// member is a node at the moment of a survey.
type member struct {
	*node
	id      string // in a cluster
	replica bool
	slots   []slotRange // that it serves as a master of a cluster
	version version
	marked  bool  // it bears the source's identity; one that does not is new, and empty
	err     error // why it could not be asked; nil if it could
}

// survey is what was last found.
type survey struct {
	members []member
	at      time.Time
}

// survey lists all nodes of the source, those that cannot be reached included,
// and proves that they are of the source which the engine was opened on. It
// fails where none can be asked.
func (e *Engine) survey(ctx context.Context) ([]member, error) {
	if members := e.recent(); members != nil {
		return members, nil
	}
	select {
	case e.surveying <- struct{}{}:
		defer func() { <-e.surveying }()
	case <-ctx.Done():
		return nil, unreachable("look at the source: it did not answer in time", ctx.Err())
	}
	if members := e.recent(); members != nil {
		return members, nil
	}
	members, err := e.discover(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.judge(members); err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.surveyed = survey{members, time.Now()}
	for _, m := range members {
		if m.err != nil || !m.marked && e.marker != "" {
			e.behind[m.address] = true
		}
	}
	e.mu.Unlock()
	return members, nil
}

func (e *Engine) recent() []member {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.surveyed.at) > surveyAge {
		return nil
	}
	return e.surveyed.members
}

// forgetSurvey makes the next operation look anew: a node has gone or come.
func (e *Engine) forgetSurvey() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.surveyed = survey{}
}

// judge refuses what is no source to work on.
func (e *Engine) judge(members []member) error {
	var failed error
	reached, marked := false, false
	for _, m := range members {
		if m.err != nil && (failed == nil || !away(m.err)) {
			failed = m.err
		}
		reached = reached || m.err == nil
		marked = marked || m.marked
	}
	switch {
	case len(members) == 0:
		return misconfigured("look at the source: all of its nodes are in gone_nodes", nil)
	case !reached:
		return failed
	case failed != nil && !away(failed): // one that answers and refuses is a mistake, not an outage
		return failed
	case e.marker != "" && !marked:
		return anotherServer(e.marker)
	}
	return nil
}

// discover finds the addresses and asks each node what it is.
func (e *Engine) discover(ctx context.Context) ([]member, error) {
	e.mu.Lock()
	cluster := e.cluster
	e.mu.Unlock()
	switch {
	case cluster:
		return e.discoverCluster(ctx)
	case e.config.target.sentinel != "":
		addresses, err := e.askSentinels(ctx)
		if err != nil {
			return nil, err
		}
		return e.lookAt(ctx, e.present(addresses)), nil
	}
	members := e.lookAt(ctx, e.present(e.config.target.hosts))
	for _, m := range members {
		if m.err == nil && m.id == clustered {
			e.mu.Lock()
			e.cluster = true
			e.mu.Unlock()
			return e.discoverCluster(ctx)
		}
	}
	return members, nil
}

// present leaves out what the configuration names as gone for good.
func (e *Engine) present(addresses []string) []member {
	gone := map[string]bool{}
	for _, address := range e.config.GoneNodes {
		gone[address] = true
	}
	var members []member
	for _, address := range addresses {
		if !gone[address] {
			members = append(members, member{node: e.node(address)})
		}
	}
	return members
}

// clustered stands in a member's id until CLUSTER NODES has told the real one.
const clustered = "cluster"

// lookAt asks each node what it is.
func (e *Engine) lookAt(ctx context.Context, members []member) []member {
	var wg sync.WaitGroup
	for i := range members {
		wg.Go(func() { members[i].err = e.look(ctx, &members[i], len(members) > 1) })
	}
	wg.Wait()
	return members
}

// look asks one node. Of several, one that just failed is left alone for a
// moment.
func (e *Engine) look(ctx context.Context, m *member, several bool) error {
	m.mu.Lock()
	failed, resting := m.failed, several && time.Since(m.failedAt) < nodeRest
	m.mu.Unlock()
	if failed != nil && resting {
		return failed
	}
	err := m.with(ctx, revoking, func(c *conn) error {
		commands := []command{{"INFO", "server"}, {"INFO", "replication"}, {"INFO", "cluster"}}
		if e.marker != "" {
			commands = append(commands, command{"ACL", "GETUSER", e.marker})
		}
		replies, err := c.send(ctx, commands...)
		if err != nil {
			return asked("look at "+m.address, err)
		}
		for _, r := range replies {
			if r.err != nil {
				return connectError(ctx, r.err)
			}
		}
		m.version = parseVersion(information(replies[0].value)["redis_version"])
		m.replica = information(replies[1].value)["role"] == "slave"
		if m.id == "" && information(replies[2].value)["cluster_enabled"] == "1" {
			m.id = clustered
		}
		if len(replies) > 3 {
			_, m.marked = readUser(e.marker, replies[3].value)
		}
		return nil
	})
	if err == nil && m.version.before(oldest) {
		err = misconfigured("look at "+m.address+": it is older than 6.2, the first that works", nil)
	}
	m.mu.Lock()
	m.failed, m.failedAt = nil, time.Time{}
	if err != nil && away(err) {
		m.failed, m.failedAt = err, time.Now()
	}
	m.mu.Unlock()
	return err
}

// askSentinels asks one Sentinel after the other for all servers of the set.
func (e *Engine) askSentinels(ctx context.Context) ([]string, error) {
	const attempt = "ask the Sentinels"
	var last error
	for _, address := range e.config.target.hosts {
		addresses, err := e.askSentinel(ctx, address)
		if err == nil {
			return addresses, nil
		}
		if last == nil || !away(err) {
			last = err
		}
	}
	return nil, asked(attempt, last)
}

func (e *Engine) askSentinel(ctx context.Context, address string) ([]string, error) {
	c, err := e.connector.connect(ctx, address, e.connector.sentinel)
	if err != nil {
		return nil, err
	}
	defer c.close()
	set := e.config.target.sentinel
	replies, err := c.send(ctx, command{"SENTINEL", "MASTER", set}, command{"SENTINEL", "REPLICAS", set})
	if err != nil {
		return nil, asked("ask the Sentinel "+address, err)
	}
	if words, _ := said(replies[0].err); strings.Contains(words, "No such master") {
		return nil, misconfigured("ask the Sentinel "+address+": it watches no set of the name "+set, nil)
	}
	for _, r := range replies {
		if r.err != nil {
			return nil, connectError(ctx, r.err)
		}
	}
	replicas, _ := replies[1].value.([]any)
	var addresses []string
	for _, entry := range append([]any{replies[0].value}, replicas...) {
		fields := map[string]string{}
		words := list(entry)
		for i := 0; i+1 < len(words); i += 2 {
			fields[words[i]] = words[i+1]
		}
		addresses = append(addresses, joinAddress(fields["ip"], fields["port"]))
	}
	return addresses, nil
}
