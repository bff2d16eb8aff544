package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/storetest"
)

// killFolder tells the test binary that it is the child of TestKill, and where to write.
const killFolder = "SCAIVAULT_TEST_KILL_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killFolder); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled writes from 8 goroutines and prints the id of each lease once it is durable.
func writeUntilKilled(dir string) error {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: dir, Chain: storetest.Chain})
	if err != nil {
		return err
	}
	var out sync.Mutex
	failed := make(chan error)
	for i := range 8 {
		go func() {
			for {
				l := benchLease()
				write := s.Write
				if i == 0 {
					write = s.WriteRelaxed // the death of the process, unlike the machine's, takes nothing
				}
				err := write(context.Background(), func(tx store.Tx) error {
					if err := tx.InsertLease(l); err != nil {
						return err
					}
					e := benchEntry()
					e.RequestID = l.ID
					return tx.Audit(store.DefaultTenant, e)
				})
				if err != nil {
					failed <- err
					return
				}
				out.Lock()
				fmt.Println(l.ID)
				out.Unlock()
			}
		}()
	}
	return <-failed
}

// What was acknowledged survives kill -9 at any moment, change and entry together.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 5 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), killFolder+"="+dir)
		var complaint strings.Builder
		child.Stderr = &complaint
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for n := 0; lines.Scan(); n++ {
			acknowledged[lines.Text()] = true
			if n == 200+77*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || complaint.Len() > 0 {
			t.Fatalf("child ended by itself: %v %s", err, complaint.String())
		}
	}
	s := open(t, dir)
	if s.Epoch() != 6 {
		t.Errorf("epoch = %d, want 6", s.Epoch())
	}
	err := s.Read(t.Context(), func(r store.Reader) error {
		leases, err := r.Leases(store.LeaseFilter{}, "", 0)
		if err != nil {
			return err
		}
		stored := map[string]bool{}
		for _, l := range leases {
			stored[l.ID] = true
		}
		for id := range acknowledged {
			whole := len(id) == len(benchLease().ID) // the last line of a killed child may not be
			if whole && !stored[id] {
				t.Errorf("acknowledged lease %s is lost", id)
			}
		}
		rows, err := r.AuditChain(s.Node(), 1, 0)
		if err != nil {
			return err
		}
		var prev []byte
		for i, row := range rows {
			prev = storetest.Chain(prev, store.AuditMessage(row))
			if row.Seq != int64(i+1) || string(prev) != string(row.MAC) {
				t.Fatalf("entry %d does not verify", row.Seq)
			}
			if !stored[row.Entry.RequestID] {
				t.Errorf("entry of lease %s without the lease", row.Entry.RequestID)
			}
		}
		counts, err := r.LeaseCounts("")
		if len(rows) != len(leases) || len(counts) != 1 || counts[0].N != int64(len(leases)) {
			t.Errorf("%d leases, %d entries, counts %v", len(leases), len(rows), counts)
		}
		t.Logf("%d acknowledged, %d stored", len(acknowledged), len(leases))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
