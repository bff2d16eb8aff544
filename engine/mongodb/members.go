package mongodb

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// member is a server that logins go to: a server alone, a member of a set that holds data, a mongos.
type member struct {
	*server
	address string
	router  bool // a mongos, which remembers users for a while
}

// routerAge is how long ago a mongos must have reported to the cluster to be taken for running. They
// report every ten seconds.
const routerAge = 5 * time.Minute

// survey finds all members, whether they can be reached or not. Hidden ones are not listed by MongoDB, and
// no client finds them either.
func (e *Engine) survey(ctx context.Context, s *server) ([]member, error) {
	h, err := s.hello(ctx)
	if err != nil {
		return nil, err
	}
	var addresses []string
	switch {
	case h.Message == "isdbgrid":
		if addresses, err = e.routers(ctx, s, h.LocalTime); err != nil {
			return nil, err
		}
	case h.SetName != "":
		addresses = append(h.Hosts, h.Passives...)
	default:
		return []member{{server: s, address: s.hosts[0]}}, nil
	}
	slices.Sort(addresses)
	var members []member
	for _, address := range slices.Compact(addresses) {
		if slices.Contains(e.config.GoneNodes, address) {
			continue
		}
		m, err := e.at(ctx, address)
		if err != nil {
			return nil, err
		}
		members = append(members, member{m, address, h.Message == "isdbgrid"})
	}
	if len(members) == 0 {
		return nil, misconfigured("list the members: all of them are in gone_nodes", nil)
	}
	return members, nil
}

// routers are the mongos that the URL, or its SRV record, names, and those that the cluster knows of.
func (e *Engine) routers(ctx context.Context, s *server, now time.Time) ([]string, error) {
	const attempt = "list the mongos of the cluster"
	p, err := e.connector.place(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := s.run(ctx, "config", bson.D{
		{Key: "find", Value: "mongos"},
		{Key: "filter", Value: bson.D{{Key: "ping", Value: bson.D{{Key: "$gt", Value: now.Add(-routerAge)}}}}},
		{Key: "batchSize", Value: int32(1000)}, {Key: "singleBatch", Value: true},
	})
	if err != nil {
		return nil, asked(attempt, err)
	}
	var found struct {
		Cursor struct {
			Batch []struct {
				Address string `bson:"_id"`
			} `bson:"firstBatch"`
		} `bson:"cursor"`
	}
	if err := bson.Unmarshal(answer, &found); err != nil {
		return nil, refusedAnswer(attempt, err)
	}
	addresses := slices.Clone(p.hosts)
	for _, f := range found.Cursor.Batch {
		addresses = append(addresses, f.Address)
	}
	return addresses, nil
}

// at is the connection to one member alone.
func (e *Engine) at(ctx context.Context, address string) (*server, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	if m := e.members[address]; m != nil {
		return m, nil
	}
	m, err := e.connector.member(ctx, address, e.root)
	if err == nil {
		e.members[address] = m
	}
	return m, err
}

// onEach does something on all members at once. The errors are in the members' order.
func onEach(members []member, do func(m member) error) []error {
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = do(m) })
	}
	wg.Wait()
	return errs
}

// everywhere is nil if all members did it. Where some did and others cannot be reached, trying again
// helps, and the source as a whole is not down.
func everywhere(attempt string, members []member, errs []error) error {
	var missing []string
	var last error
	for i, err := range errs {
		switch {
		case err == nil:
		case !away(err):
			return err
		default:
			missing, last = append(missing, members[i].address), err
		}
	}
	switch {
	case len(missing) == 0:
		return nil
	case len(missing) == len(members):
		return last
	}
	return busy(attempt+": it is done on all members but "+strings.Join(missing, ", ")+", which cannot be reached: it is tried again until the member is back, has left the source, or is named in gone_nodes", last)
}

// poll looks again until something holds.
func poll(ctx context.Context, otherwise string, holds func() (bool, error)) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if done, err := holds(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return busy(otherwise, ctx.Err())
		case <-time.After(wait):
		}
	}
}
