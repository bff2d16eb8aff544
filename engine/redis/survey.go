package redis

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
)

const (
	// surveyAge is how old the list of the nodes may be.
	surveyAge = time.Second
	// surveyLimit is how old it may be while a new one is made, of several nodes:
	// one that does not answer must not hold up what the others can do.
	surveyLimit = 30 * time.Second
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
	offset  time.Duration // its clock minus ours, less the way of the answer
	marked  bool          // it bears the source's identity; one that does not is new, and empty
	err     error         // why it could not be asked; nil if it could
}

// survey is what was last found.
type survey struct {
	members []member
	at      time.Time
	old     bool // something has changed since
}

// survey lists all nodes of the source, those that cannot be reached included,
// and proves that they are of the source which the engine was opened on. It
// fails where none can be asked.
func (e *Engine) survey(ctx context.Context) ([]member, error) {
	members, fresh := e.known()
	if fresh {
		return members, nil
	}
	if members != nil {
		select {
		case e.surveying <- struct{}{}:
			go func() {
				defer func() { <-e.surveying }()
				ctx, cancel := e.operation(context.WithoutCancel(ctx))
				defer cancel()
				if _, err := e.surveyNow(ctx); err != nil {
					e.log.Warn("the nodes of a source could not be listed", "reason", plain(err).Reason)
				}
			}()
		default: // somebody is at it
		}
		return members, nil
	}
	select {
	case e.surveying <- struct{}{}:
		defer func() { <-e.surveying }()
	case <-ctx.Done():
		return nil, unreachable("look at the source: it did not answer in time", ctx.Err())
	}
	if members, fresh := e.known(); fresh {
		return members, nil
	}
	return e.surveyNow(ctx)
}

// surveyNow is for who holds e.surveying.
func (e *Engine) surveyNow(ctx context.Context) ([]member, error) {
	members, err := e.discover(ctx)
	if err == nil {
		err = e.judge(members)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.surveyed = survey{}
		return nil, err
	}
	e.surveyed = survey{members: members, at: time.Now()}
	for _, m := range members {
		if m.err != nil || !m.marked && e.marker != "" {
			e.behind[m.address] = true
		}
	}
	return slices.Clone(members), nil
}

// known is the last survey, as long as it may be used; fresh tells that no new
// one is needed. Callers may change what they get.
func (e *Engine) known() (members []member, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	age := time.Since(e.surveyed.at)
	switch fresh = age <= surveyAge && !e.surveyed.old; {
	case fresh, len(e.surveyed.members) > 1 && age <= surveyLimit:
		return slices.Clone(e.surveyed.members), fresh
	}
	return nil, false
}

// forgetSurvey makes the next operation wait for a new one.
func (e *Engine) forgetSurvey() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.surveyed = survey{}
}

// judge refuses what is no source to work on. A node that answers and refuses is
// a mistake to be mended before the engine is used; later it is like one that is
// away, so that the others go on.
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
	case !reached, e.source == "" && failed != nil && !away(failed):
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
	ctx, cancel := context.WithTimeout(ctx, e.config.ConnectTimeout.Std())
	defer cancel()
	err := m.pool.With(ctx, engine.Revoking, func(c *conn) error {
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
		server := information(replies[0].value)
		m.version = parseVersion(server["redis_version"])
		if now, err := strconv.ParseInt(server["server_time_usec"], 10, 64); err == nil {
			m.offset = time.Until(time.UnixMicro(now))
		}
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
