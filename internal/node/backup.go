package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/backup"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	backupTarget = "/backup"
	// summaryTrailer follows a backup that is whole.
	summaryTrailer = "Scaivault-Summary"
	// backupPatience is how long who takes a backup may let the server wait for it: meanwhile the
	// embedded store's log grows, and the shared one's dead rows stay.
	backupPatience = 2 * time.Minute
)

// host is the identity of who has the host in hand: it can read the store's files.
const host = "system:host"

// backupRequest is what the audit trail is told of a backup.
type backupRequest struct {
	EncryptedTo []string `json:"encrypted_to"`
}

// Backup writes a backup to w, unencrypted: by the running server, or, where none runs, from the
// store itself. It is for who has the host in hand. The audit trail says to whom the caller means to
// encrypt it.
func Backup(ctx context.Context, c *config.Config, o Options, encryptedTo []string, w io.Writer) (*backup.Summary, error) {
	req := backupRequest{EncryptedTo: encryptedTo}
	summary, running, err := askBackup(ctx, c.DataDir, req, w)
	if running || err != nil {
		return summary, err
	}
	if _, exists, err := peek(ctx, c); err != nil {
		return nil, err
	} else if !exists {
		return nil, fmt.Errorf("back up: there is no store in %s; set DATA_DIR or DATABASE_URL", place(c))
	}
	st, _, keys, err := openStore(ctx, c, o.Logger)
	if err != nil {
		return nil, err
	}
	summary, err = writeBackup(ctx, st, keys, o.Version, req, w)
	return summary, errors.Join(err, st.Close())
}

// writeBackup records the backup before it begins, so that none is taken unseen, and what came of it.
func writeBackup(ctx context.Context, st store.Store, keys *seal.Keyring, release string, req backupRequest, w io.Writer) (*backup.Summary, error) {
	record := func(success bool, extra map[string]any) error {
		extra["encrypted_to"] = req.EncryptedTo
		return st.Write(context.WithoutCancel(ctx), func(tx store.Tx) error {
			return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "system_backup", IdentityType: access.TypeSystem, IdentityID: host,
				SecretPath: "sys/backup", Success: success, ExtraData: extra})
		})
	}
	if err := record(true, map[string]any{"outcome": "requested"}); err != nil {
		return nil, err
	}
	summary, err := backup.Write(ctx, w, st, keys, release)
	if err != nil {
		return nil, errors.Join(err, record(false, map[string]any{"outcome": "failed"}))
	}
	return summary, record(true, map[string]any{"outcome": "written", "records": summary.Records, "created_at": summary.CreatedAt})
}

// askBackup lets the running server write the backup; running is false when there is none.
func askBackup(ctx context.Context, dir string, req backupRequest, w io.Writer) (_ *backup.Summary, running bool, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, false, err
	}
	resp, err := askControl(ctx, dir, backupTarget, bytes.NewReader(body))
	if err != nil || resp == nil {
		return nil, err != nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, true, errors.New("ask the running server for a backup: it failed; see the server's log")
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return nil, true, fmt.Errorf("take the backup from the running server: %w", err)
	}
	summary := &backup.Summary{}
	if err := json.Unmarshal([]byte(resp.Trailer.Get(summaryTrailer)), summary); err != nil {
		return nil, true, errors.New("take the backup from the running server: it was cut off; see the server's log")
	}
	return summary, true, nil
}

// serveBackup streams a backup to the command that asked for it. A failure cuts the answer off.
func (n *Node) serveBackup(p *parts, release string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req backupRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Trailer", summaryTrailer)
		out := &patientWriter{ctx: r.Context(), w: w, control: http.NewResponseController(w)}
		defer context.AfterFunc(r.Context(), out.giveUp)()
		// What bounds a request here is how long a write waits.
		err := out.control.SetReadDeadline(time.Time{})
		var summary *backup.Summary
		var text []byte
		if err == nil {
			summary, err = writeBackup(r.Context(), p.store, p.keys, release, req, out)
		}
		if err == nil {
			text, err = json.Marshal(summary)
		}
		if err != nil {
			n.log.Error("control: write a backup", "error", err, "cause", errors.Unwrap(err))
			if out.begun {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set(summaryTrailer, string(text))
	}
}

// patientWriter gives each write its own time, until the context ends.
type patientWriter struct {
	ctx     context.Context //nolint:containedctx // of the one answer that it writes
	w       io.Writer
	control *http.ResponseController
	begun   bool

	mu sync.Mutex // of the deadline
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.wait(); err != nil {
		return 0, err
	}
	p.begun = true
	return p.w.Write(b)
}

func (p *patientWriter) wait() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ctx.Err(); err != nil {
		return err
	}
	return p.control.SetWriteDeadline(time.Now().Add(backupPatience))
}

// giveUp ends the write that waits.
func (p *patientWriter) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.control.SetWriteDeadline(time.Now()) // fails where the answer is over
}
