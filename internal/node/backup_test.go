package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/backup"
	"github.com/scaivault/scaivault/internal/node"
)

// A running server takes its own backup, and none is taken unseen.
func TestBackupOfARunningServer(t *testing.T) {
	t.Parallel()
	c := load(t, t.TempDir(), nil)
	n := start(t, c, node.Options{Dev: true})
	o := node.Options{Logger: slog.New(slog.DiscardHandler)}
	var file bytes.Buffer
	summary, err := node.Backup(t.Context(), c, o, []string{"age1x"}, &file)
	if err != nil {
		t.Fatal(err)
	}
	if summary.Records["audit"] == 0 || !summary.Authentic {
		t.Errorf("summary %+v", summary)
	}
	_, answer := ask(t, n, "GET", "/v1/audit/logs?action=system_backup", n.Token().Reveal(), "")
	if text := fmt.Sprint(answer); !strings.Contains(text, "outcome:requested") || !strings.Contains(text, "outcome:written") || !strings.Contains(text, "age1x") {
		t.Errorf("the audit trail says %s", text)
	}

	// It cannot be restored over the server that runs, nor by a host that has not its key.
	reader := func() *backup.Reader {
		r, err := backup.Open(bytes.NewReader(file.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := node.Restore(t.Context(), c, o, reader(), false); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("restore over a running server: %v", err)
	}
	elsewhere := load(t, t.TempDir(), nil)
	if _, err := node.Restore(t.Context(), elsewhere, o, reader(), false); err == nil || !strings.Contains(err.Error(), "does not hold the seal key") {
		t.Errorf("restore without the key: %v", err)
	}
	other := load(t, t.TempDir(), nil)
	stop(t, start(t, other, node.Options{Dev: true}))
	if _, err := node.VerifyBackup(t.Context(), other, reader()); err == nil || !strings.Contains(err.Error(), "sealed by key") {
		t.Errorf("verify with another key: %v", err)
	}
	if s, err := node.VerifyBackup(t.Context(), elsewhere, reader()); err != nil || s.Authentic {
		t.Errorf("verify without a key: %+v, %v", s, err)
	}
}

// blocked takes the beginning of a backup and then no more.
type blocked struct {
	begun chan struct{}
	end   chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	select {
	case <-b.begun:
		<-b.end
		return 0, io.ErrClosedPipe
	default:
		close(b.begun)
		return len(p), nil
	}
}

// A command that hangs does not keep the server from shutting down.
func TestShutdownCutsABackupOff(t *testing.T) {
	t.Parallel()
	c := load(t, t.TempDir(), nil)
	n := start(t, c, node.Options{Dev: true})
	for i := range 24 { // more than lies in buffers on the way
		value := make([]byte, 192<<10)
		_, _ = rand.Read(value)
		body := fmt.Sprintf(`{"data":{"v":%q},"secret_type":"json"}`, base64.StdEncoding.EncodeToString(value))
		if status, answer := ask(t, n, "PUT", fmt.Sprintf("/v1/secrets/apps/s%d", i), n.Token().Reveal(), body); status/100 != 2 {
			t.Fatalf("write a secret: %d, %v", status, answer)
		}
	}
	w := &blocked{begun: make(chan struct{}), end: make(chan struct{})}
	failed := make(chan error, 1)
	go func() {
		_, err := node.Backup(context.WithoutCancel(t.Context()), c, node.Options{}, nil, w)
		failed <- err
	}()
	<-w.begun
	for range 200 { // meanwhile the server has filled what lies between
		ask(t, n, "GET", "/v1/health", "", "")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second) // less than a hanging write may last
	defer cancel()
	if err := n.Shutdown(ctx); err != nil {
		t.Errorf("shut down: %v", err)
	}
	close(w.end)
	if err := <-failed; err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("the backup was cut off and says: %v", err)
	}
}
