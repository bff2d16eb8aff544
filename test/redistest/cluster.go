package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// clusterSlots is the number of hash slots of a cluster.
const clusterSlots = 16384

// Set is servers that belong together.
type Set struct {
	Masters, Replicas []*Server // as they were at the start
	Sentinels         []*Server // of a set that is watched
	Name              string    // by which the Sentinels know it
}

// Servers are those with data.
func (s *Set) Servers() []*Server { return append(append([]*Server{}, s.Masters...), s.Replicas...) }

// StartCluster runs a cluster of masters, each with one replica.
func StartCluster(t TB, kind string, masters int) *Set {
	t.Helper()
	set := &Set{}
	lines := WithLines("cluster-enabled yes", "cluster-node-timeout 1000", "cluster-replica-validity-factor 0", "masteruser default", "masterauth "+password, "repl-diskless-sync-delay 0")
	for range masters {
		set.Masters = append(set.Masters, Start(t, kind, lines))
		set.Replicas = append(set.Replicas, Start(t, kind, lines))
	}
	first := set.Masters[0]
	for i, m := range set.Masters {
		m.Do(t, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		begin, end := i*clusterSlots/masters, (i+1)*clusterSlots/masters
		slots := []any{"CLUSTER", "ADDSLOTS"}
		for slot := begin; slot < end; slot++ {
			slots = append(slots, slot)
		}
		m.Do(t, slots...)
	}
	for _, s := range set.Servers() {
		if s != first {
			first.Do(t, "CLUSTER", "MEET", "127.0.0.1", s.Port)
		}
	}
	await(t, "the nodes of the cluster know each other", func() bool {
		for _, s := range set.Servers() {
			if strings.Count(clusterNodes(s), "connected") != 2*masters {
				return false
			}
		}
		return true
	})
	for i, r := range set.Replicas {
		id := fmt.Sprint(set.Masters[i].Do(t, "CLUSTER", "MYID"))
		await(t, "a node is a replica", func() bool { _, err := r.Try("CLUSTER", "REPLICATE", id); return err == nil })
	}
	await(t, "the cluster is whole", func() bool {
		for _, s := range set.Servers() {
			info, _ := s.Try("CLUSTER", "INFO")
			if !strings.Contains(fmt.Sprint(info), "cluster_state:ok") || strings.Count(clusterNodes(s), "slave") != masters {
				return false
			}
		}
		return linked(set.Replicas)
	})
	return set
}

func clusterNodes(s *Server) string {
	nodes, _ := s.Try("CLUSTER", "NODES")
	return strings.ReplaceAll(fmt.Sprint(nodes), "disconnected", "gone")
}

// StartWatched runs a master with a replica, and Sentinels that watch both.
func StartWatched(t TB, kind string, sentinels int) *Set {
	t.Helper()
	set := &Set{Name: "cache"}
	lines := []string{"masteruser default", "masterauth " + password, "repl-diskless-sync-delay 0"}
	set.Masters = []*Server{Start(t, kind, WithLines(lines...))}
	set.Replicas = []*Server{Start(t, kind, WithLines(append(lines, "replicaof 127.0.0.1 "+strconv.Itoa(set.Masters[0].Port))...))}
	await(t, "the replica follows", func() bool { return linked(set.Replicas) })
	watch := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", set.Name, set.Masters[0].Port, sentinels/2+1),
		"sentinel auth-user " + set.Name + " default", "sentinel auth-pass " + set.Name + " " + password,
		"sentinel down-after-milliseconds " + set.Name + " 1000", "sentinel failover-timeout " + set.Name + " 3000",
	}
	for range sentinels {
		set.Sentinels = append(set.Sentinels, startSentinel(t, kind, watch))
	}
	await(t, "the Sentinels know each other and the replica", func() bool {
		for _, s := range set.Sentinels {
			fields, err := s.Try("SENTINEL", "MASTER", set.Name)
			if err != nil || field(fields, "num-slaves") != "1" || field(fields, "num-other-sentinels") != strconv.Itoa(sentinels-1) {
				return false
			}
		}
		return true
	})
	return set
}

// startSentinel runs a Sentinel that asks for no password.
func startSentinel(t TB, kind string, lines []string) *Server {
	t.Helper()
	return Start(t, kind, func(o *options) { o.sentinel, o.noACLFile, o.lines = true, true, lines })
}

// Master is the server that the Sentinels take for the master.
func (s *Set) Master(t TB) *Server {
	t.Helper()
	fields := s.Sentinels[0].Do(t, "SENTINEL", "MASTER", s.Name)
	for _, server := range s.Servers() {
		if field(fields, "port") == strconv.Itoa(server.Port) {
			return server
		}
	}
	t.Fatalf("the Sentinels name a server that is none of the set")
	return nil
}

func field(answer any, name string) string {
	words, _ := answer.([]any)
	for i := 0; i+1 < len(words); i += 2 {
		if words[i] == name {
			return fmt.Sprint(words[i+1])
		}
	}
	return ""
}

func linked(replicas []*Server) bool {
	for _, r := range replicas {
		info, _ := r.Try("INFO", "replication")
		if !strings.Contains(fmt.Sprint(info), "master_link_status:up") {
			return false
		}
	}
	return true
}

func await(t TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
