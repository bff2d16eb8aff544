package failpoints_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/proxy"
	"github.com/scaivault/scaivault/test/redistest"
	"github.com/scaivault/scaivault/test/servertest"
)

// TestCrashMatrixRedis kills the server at every point that is reached with Redis. That has no
// transactions over its users, and does not write them down by itself. So each scenario kills the
// source, too, when all is decided: what was not saved does not count.
func TestCrashMatrixRedis(t *testing.T) {
	t.Parallel()
	// The moments in which something is at the source and not saved, or on one node and not on the other.
	between := []failpoint.Point{failpoint.F4, failpoint.F5, failpoint.Disabled, failpoint.R2, failpoint.RootSet, failpoint.RootProved}
	for _, kind := range redistest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			alone := variant{name: "alone", scenarios: everywhere(), target: func(t *testing.T, role string) target { return inRedis(t, kind, 1, role) }}
			// To the replica of a pair Redis replicates no users.
			pair := variant{name: "pair", scenarios: everywhere(), target: func(t *testing.T, role string) target { return inRedis(t, kind, 2, role) }}
			if kind == redistest.Redis {
				alone.short = between
			} else {
				pair.short = between
			}
			playAll(t, append(both(pair), alone), map[failpoint.Point]string{
				failpoint.Emptied: "a user of Redis owns nothing",
			})
		})
	}
}

// lag is how much later messages come to a replica, and answers from it: a kill finds the master changed and the
// replica not.
const lag = 50 * time.Millisecond

// inRedis starts a master, and perhaps a replica, with the root of the guide.
func inRedis(t *testing.T, kind string, count int, role string) target {
	t.Helper()
	servers := []*redistest.Server{redistest.Start(t, kind)}
	if count > 1 {
		master := servers[0]
		_, port, _ := strings.Cut(master.Addr(), ":")
		servers = append(servers, redistest.Start(t, kind, redistest.WithLines("replicaof 127.0.0.1 "+port, "masteruser default", "masterauth "+master.Password())))
	}
	var addresses []string
	for i, server := range servers {
		address := server.Addr()
		if i > 0 {
			far := proxy.New(t, address)
			far.Delay(lag)
			address = far.Addr()
		}
		addresses = append(addresses, address)
		server.SetUp(t)
	}
	return target{
		engine: "database",
		config: client.Document{"plugin": "redis", "connection_url": "redis://{{username}}:{{password}}@" + strings.Join(addresses, ",")},
		form:   client.Document{"acl_rules": []string{"~app:*", "+@read", "+@connection"}},
		root:   rootOf(servertest.GuideRoot),
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
