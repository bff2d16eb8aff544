package redis

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// slots is the number of hash slots of a cluster.
const slots = 16384

// slotRange is a range of slots, both ends included.
type slotRange struct{ first, last int }

// discoverCluster asks any node for all of them. A node that has failed stays in
// the list until it is forgotten there (CLUSTER FORGET), and so it does here.
func (e *Engine) discoverCluster(ctx context.Context) ([]member, error) {
	e.mu.Lock()
	var addresses []string
	for _, m := range e.surveyed.members {
		if m.err == nil {
			addresses = append(addresses, m.address)
		}
	}
	e.mu.Unlock()
	var last error
	for _, address := range append(addresses, e.config.target.hosts...) {
		found, err := e.clusterNodes(ctx, e.node(address))
		if err != nil {
			if last == nil || !away(err) {
				last = err
			}
			continue
		}
		byAddress := map[string]member{}
		var all []string
		for _, m := range found {
			byAddress[m.listed] = m.member
			all = append(all, m.listed)
		}
		members := e.present(all)
		for i := range members {
			m := byAddress[members[i].address]
			members[i].id, members[i].slots = m.id, m.slots
		}
		return e.lookAt(ctx, members), nil
	}
	return nil, asked("look at the cluster", last)
}

// listedNode is a line of CLUSTER NODES.
type listedNode struct {
	member
	listed string // its address
}

func (e *Engine) clusterNodes(ctx context.Context, n *node) (found []listedNode, err error) {
	err = n.pool.With(ctx, engine.Revoking, func(c *conn) error {
		answer, err := c.do(ctx, "CLUSTER", "NODES")
		if err != nil {
			return asked("list the nodes of the cluster", err)
		}
		found = readClusterNodes(text(answer))
		return nil
	})
	return found, err
}

// readClusterNodes reads lines of "id ip:port@bus,name flags master ping pong
// epoch link slots…". A node that was never met (noaddr, handshake) has no users
// of ours.
func readClusterNodes(answer string) []listedNode {
	var found []listedNode
	for line := range strings.SplitSeq(answer, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 8 || strings.Contains(fields[2], "noaddr") || strings.Contains(fields[2], "handshake") {
			continue
		}
		address, name, _ := strings.Cut(fields[1], ",")
		address, _, _ = strings.Cut(address, "@")
		at := strings.LastIndexByte(address, ':')
		if at < 0 {
			continue
		}
		host, port := address[:at], address[at+1:]
		name, _, _ = strings.Cut(name, ",")
		if name != "" && name != "?" {
			host = name
		}
		found = append(found, listedNode{member{id: fields[0], slots: readSlots(fields[8:])}, joinAddress(host, port)})
	}
	return found
}

func joinAddress(host, port string) string {
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

func readSlots(fields []string) []slotRange {
	var ranges []slotRange
	for _, field := range fields {
		from, to, several := strings.Cut(field, "-")
		if !several {
			to = from
		}
		first, err := strconv.Atoi(from) // slots on the move are in brackets, and so no numbers
		last, err2 := strconv.Atoi(to)
		if err == nil && err2 == nil {
			ranges = append(ranges, slotRange{first, last})
		}
	}
	return ranges
}

// tagFor finds a hash tag whose keys are in one of the ranges; empty where there
// is none, as on a master without slots.
func tagFor(ranges []slotRange) string {
	if len(ranges) == 0 {
		return ""
	}
	for i := range 64 * slots {
		tag := strconv.Itoa(i)
		slot := int(crc16(tag)) % slots
		for _, r := range ranges {
			if r.first <= slot && slot <= r.last {
				return tag
			}
		}
	}
	return ""
}

// crc16 is CRC-16/XMODEM, by which a cluster spreads its keys.
func crc16(text string) uint16 {
	var crc uint16
	for _, b := range []byte(text) {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
