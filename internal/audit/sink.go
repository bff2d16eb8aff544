package audit

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

// Sink is another place for the trail. Deliver returns when the lines are kept there as well as
// that place can; they may be delivered again after a crash.
type Sink interface {
	Name() string // also names how far the delivery has come, so it is kept
	Deliver(lines [][]byte) error
}

// line is an entry as a sink gets it: with its place and MAC, so that it proves the chain's.
type line struct {
	Node   string          `json:"node"`
	Seq    int64           `json:"seq"`
	Tenant string          `json:"tenant"`
	MAC    string          `json:"mac"`
	Entry  json.RawMessage `json:"entry"`
}

const (
	shipEvery = time.Second
	shipChunk = 500
	shipLast  = 5 * time.Second // for what is left when the server stops
	sinkKey   = "audit_sink/"   // + sink's name + "/" + node
)

// Shipper carries this node's chain to a sink, in order, each entry at least once. The table is the
// truth: requests never wait for a sink, and one that was away gets what it missed.
type Shipper struct {
	Store  store.Store
	Sink   Sink
	Logger *slog.Logger
}

// Run delivers until ctx ends, and then what is left.
func (s *Shipper) Run(ctx context.Context) {
	tick := time.NewTicker(shipEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-tick.C:
			err := s.Ship(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				s.Logger.Error("audit: deliver to the sink; trying on", "sink", s.Sink.Name(), "error", err)
			}
			if err == nil && failing {
				s.Logger.Info("audit: the sink takes entries again", "sink", s.Sink.Name())
			}
			failing = err != nil
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shipLast)
			defer cancel()
			if err := s.Ship(ctx); err != nil {
				s.Logger.Error("audit: deliver to the sink; what is left goes after the next start", "sink", s.Sink.Name(), "error", err)
			}
			return
		}
	}
}

// Ship delivers all that is there.
func (s *Shipper) Ship(ctx context.Context) error {
	key := sinkKey + s.Sink.Name() + "/" + s.Store.Node()
	for {
		var rows []*store.AuditRow
		if err := s.Store.Read(ctx, func(r store.Reader) error {
			done, err := delivered(r, key)
			if err == nil {
				rows, err = r.AuditChain(s.Store.Node(), done+1, shipChunk)
			}
			return err
		}); err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		lines := make([][]byte, 0, len(rows))
		for _, row := range rows {
			lines = append(lines, encode(row))
		}
		if err := s.Sink.Deliver(lines); err != nil {
			return err
		}
		last := strconv.FormatInt(rows[len(rows)-1].Seq, 10)
		if err := s.Store.WriteRelaxed(ctx, func(tx store.Tx) error { return tx.PutMeta(key, []byte(last)) }); err != nil {
			return err
		}
	}
}

func delivered(r store.Reader, key string) (int64, error) {
	raw, err := r.Meta(key)
	if err != nil || raw == nil {
		return 0, err
	}
	return strconv.ParseInt(string(raw), 10, 64)
}

// encode is one line. An entry that somebody made illegible is carried as a string.
func encode(row *store.AuditRow) []byte {
	entry := json.RawMessage(row.Raw)
	if !json.Valid(entry) {
		entry, _ = json.Marshal(string(row.Raw)) // a string always marshals
	}
	b, err := json.Marshal(line{row.Node, row.Seq, row.Tenant, hex.EncodeToString(row.MAC), entry})
	if err != nil {
		panic("marshal an audit line: " + err.Error())
	}
	return b
}

// OpenSink opens the sink of a setting: "file:PATH", "stdout", or "syslog" for the local daemon.
func OpenSink(setting string) (Sink, error) {
	path, isFile := strings.CutPrefix(setting, filePrefix)
	switch {
	case isFile && path != "":
		return File(path), nil
	case setting == "stdout":
		return Output{os.Stdout}, nil
	case setting == "syslog":
		return DialSyslog("", "")
	default:
		return nil, fmt.Errorf("open the audit sink %q: write file:PATH, stdout or syslog", setting)
	}
}

const filePrefix = "file:"

// File appends lines to a file (0600), flushed to disk. It is opened for each delivery, so that
// what rotates logs may rename it at any time.
type File string

// Name is the sink's: another file gets the whole trail.
func (f File) Name() string { return filePrefix + string(f) }

// Deliver appends the lines.
func (f File) Deliver(lines [][]byte) error {
	file, err := os.OpenFile(string(f), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit file: %w", err)
	}
	_, err = file.Write(join(lines))
	return errors.Join(err, file.Sync(), file.Close())
}

// Output writes lines to a stream such as standard output.
type Output struct{ io.Writer }

// Name is the sink's.
func (Output) Name() string { return "output" }

// Deliver writes the lines.
func (o Output) Deliver(lines [][]byte) error {
	_, err := o.Write(join(lines))
	return err
}

func join(lines [][]byte) []byte { return append(bytes.Join(lines, []byte("\n")), '\n') }

// Syslog sends lines to a syslog daemon, facility authpriv.
type Syslog struct{ writer *syslog.Writer }

// DialSyslog connects: to the local daemon when both are empty. It connects again by itself.
func DialSyslog(network, address string) (*Syslog, error) {
	w, err := syslog.Dial(network, address, syslog.LOG_INFO|syslog.LOG_AUTHPRIV, "scaivault")
	if err != nil {
		return nil, fmt.Errorf("connect to syslog: %w", err)
	}
	return &Syslog{w}, nil
}

// Name is the sink's.
func (*Syslog) Name() string { return "syslog" }

// Deliver sends the lines.
func (s *Syslog) Deliver(lines [][]byte) error {
	for _, l := range lines {
		if _, err := s.writer.Write(l); err != nil {
			return err
		}
	}
	return nil
}
