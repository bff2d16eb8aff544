package failpoints_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/proxy"
	"github.com/scaivault/scaivault/test/redistest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// The forms in which the source and the server are met.
const (
	alone  = "alone"
	pair   = "pair"   // a master with a replica, to which Redis replicates no users
	shared = "shared" // a pair, and another node of a shared store that settles what the dead one has left
)

// TestCrashMatrixRedis kills the server at every point that is reached with Redis. That has no
// transactions over its users, and does not write them down by itself. So each scenario kills the
// source, too, when all is decided: what was not saved does not count.
func TestCrashMatrixRedis(t *testing.T) {
	t.Parallel()
	var store *pgtest.Server
	if full() {
		store = pgtest.Start(t, 17)
	}
	for _, kind := range redistest.Kinds() {
		for _, s := range everywhere() {
			for _, form := range redisForms(kind, s.point) {
				t.Run(kind+"/"+form+"/"+string(s.point), func(t *testing.T) {
					t.Parallel()
					var nodes []*vaulttest.Server
					if form == shared {
						nodes = vaulttest.StartNodes(t, vaulttest.Failing(t), 2, store.SuperURL(store.CreateDB(t)))
					} else {
						nodes = append(nodes, vaulttest.StartProgram(t, vaulttest.Failing(t)))
					}
					role := newRole()
					inRedis(t, kind, form, role).play(t, s, role, nodes...)
				})
			}
		}
	}
}

// redisForms are the forms in which a point is played. The short form of the test has the moments in
// which something is at the source and not saved, or on one node and not on the other.
func redisForms(kind string, p failpoint.Point) (forms []string) {
	between := slices.Contains([]failpoint.Point{failpoint.F4, failpoint.F5, failpoint.Disabled, failpoint.R2, failpoint.RootSet, failpoint.RootProved}, p)
	switch {
	case full() && between:
		return []string{alone, pair, shared}
	case full():
		return []string{alone, pair}
	case between && kind == redistest.Redis:
		return []string{alone}
	case between:
		return []string{pair}
	}
	return nil
}

// lag is how much later messages come to a replica, and answers from it: a kill finds the master changed and the
// replica not.
const lag = 50 * time.Millisecond

// inRedis starts servers with the root of the guide.
func inRedis(t *testing.T, kind, form, role string) target {
	t.Helper()
	servers := []*redistest.Server{redistest.Start(t, kind)}
	if form != alone {
		master := servers[0]
		_, port, _ := strings.Cut(master.Addr(), ":")
		servers = append(servers, redistest.Start(t, kind, redistest.WithLines("replicaof 127.0.0.1 "+port, "masteruser default", "masterauth "+master.Password())))
	}
	guide, err := os.ReadFile("../../docs/engines/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(guide), "```redis\n")
	block, _, _ = strings.Cut(block, "```")
	var addresses []string
	for i, server := range servers {
		address := server.Addr()
		if i > 0 {
			far := proxy.New(t, address)
			far.Delay(lag)
			address = far.Addr()
		}
		addresses = append(addresses, address)
		for line := range strings.Lines(block) {
			var arguments []any
			for _, word := range strings.Fields(line) {
				arguments = append(arguments, word)
			}
			server.Do(t, arguments...)
		}
	}
	return target{
		engine: "database",
		config: client.Document{"plugin": "redis", "connection_url": "redis://{{username}}:{{password}}@" + strings.Join(addresses, ",")},
		form:   client.Document{"acl_rules": []string{"~app:*", "+@read", "+@connection"}},
		root:   rootOf("scaivault"),
		users: func(t *testing.T) (names []string) {
			t.Helper()
			var all [][]string // of each node; one that was away is like the others soon
			eventually(t, func() string { return fmt.Sprintf("the nodes have the same users: %v", all) }, func() bool {
				all = nil
				for _, server := range servers {
					names = slices.DeleteFunc(server.Users(t), func(name string) bool { return !strings.HasPrefix(name, "v_"+role+"_") })
					slices.Sort(names)
					all = append(all, names)
				}
				return slices.Equal(all[0], names)
			})
			return names
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			for i, server := range servers {
				c := server.Client(data["username"], data["password"])
				err := c.Ping(t.Context()).Err()
				if i > 0 { // a replica that was away has it soon
					eventually(t, func() string { return fmt.Sprintf("%s logs in to the replica: %v", data["username"], err) }, func() bool {
						err = c.Ping(t.Context()).Err()
						return err == nil
					})
				}
				_ = c.Close()
				if err != nil {
					return err
				}
			}
			return nil
		},
		restart: func(t *testing.T) {
			t.Helper()
			for _, server := range servers {
				server.Kill(t)
				server.Run(t)
			}
		},
	}
}
