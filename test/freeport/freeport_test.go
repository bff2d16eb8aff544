package freeport

import (
	"net"
	"strconv"
	"sync"
	"testing"
)

// Nobody gets a port twice, nor one that lies above another's as it was asked for.
func TestPick(t *testing.T) {
	t.Parallel()
	const bus = 10000
	var mu sync.Mutex
	taken := map[int]bool{}
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for range 10 {
				port, err := Pick(bus)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if taken[port] || taken[port+bus] {
					t.Errorf("port %d was given twice", port)
				}
				taken[port], taken[port+bus] = true, true
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	for port := range taken {
		if claim(port) {
			t.Errorf("port %d is not held", port)
		}
	}
}

// A port on which somebody listens who did not ask is passed over.
func TestPassesOverWhoListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(port); err != nil || free(n) {
		t.Errorf("port %s counts as free, %v", port, err)
	}
}
