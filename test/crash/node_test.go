package crash_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/proxy"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// node is one server under test, and its own ways to the source and the store.
type node struct {
	vault  *vaulttest.Server
	source *proxy.Proxy
	store  *proxy.Proxy // nil where the store is embedded
	app    *client.Client
	keeper *client.Client // of the one that rotates the root

	// One thing at a time is done to the process, and one to its networks.
	process, network atomic.Bool
	ills             atomic.Int32 // what keeps it from working at present
	healed           atomic.Int64 // when that ended last, in Unix nanoseconds
}

// well tells whether the node can do all its work.
func (n *node) well() bool { return n.ills.Load() == 0 }

// suffer runs something that keeps the node from working, unless something of
// that kind is being done to it already.
func (n *node) suffer(kind *atomic.Bool, ill func()) bool {
	if !kind.CompareAndSwap(false, true) {
		return false
	}
	defer kind.Store(false)
	n.ills.Add(1)
	defer func() {
		n.healed.Store(time.Now().UnixNano())
		n.ills.Add(-1)
	}()
	ill()
	return true
}

// kill kills the node and lets somebody start it again, until that succeeds: its
// store may be away.
func (n *node) kill(t *testing.T, down time.Duration) {
	t.Helper()
	n.vault.Kill(t)
	time.Sleep(down)
	n.start(t)
}

func (n *node) start(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := n.vault.TryRun()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("start the server again: %v; its output: %s", err, tail(n.vault.Output()))
			return
		}
	}
}

func (n *node) pause(t *testing.T, lasts time.Duration) {
	t.Helper()
	n.vault.Signal(t, syscall.SIGSTOP)
	time.Sleep(lasts)
	n.vault.Signal(t, syscall.SIGCONT)
}

func tail(text string) string { return text[max(0, len(text)-4000):] }
