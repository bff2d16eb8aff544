// Package backup is the form in which all that a store holds is kept in one file, whatever store it
// came from, so that it can be restored into any.
//
// Within the encryption (age) and a compression (gzip) there is one JSON document a line: a header,
// the records of [store.Store.Export], and an end that counts them and proves that they are all
// there, in their order, and what the server wrote: a MAC under a key that only the seal opens. What
// is secret in the records is sealed as it is in the store; the seal's key is not part of a backup.
package backup

import (
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
)

// Format is the version of the form of the lines; what records can say has its own
// ([store.ContentVersion]).
const Format = 1

// Header is the first line.
type Header struct {
	Format       int       `json:"scaivault_backup"`
	Content      int       `json:"content"`
	Release      string    `json:"release"`
	Installation string    `json:"installation"`
	CreatedAt    time.Time `json:"created_at"` // what was answered before is part of it
	Keyring      []byte    `json:"keyring"`    // as it stands in the store, wrapped by the seal's key
}

// Summary is what a backup holds.
type Summary struct {
	Installation string           `json:"installation"`
	CreatedAt    time.Time        `json:"created_at"`
	Release      string           `json:"release"`
	Records      map[string]int64 `json:"records"` // by kind
	// Authentic: the MAC was verified with the seal's key. Without that key it cannot be.
	Authentic bool `json:"authentic"`
}

// end is the last line.
type end struct {
	Records map[string]int64 `json:"records"`
	SHA256  []byte           `json:"sha256"` // of all lines before
	MAC     []byte           `json:"mac"`    // of that
}

// line is any line but the first.
type line struct {
	store.Record
	End *end `json:"end,omitempty"`
}

// Write writes a backup of the store as it is now, unencrypted, while others go on writing to it.
// Its memory does not grow with the store.
func Write(ctx context.Context, w io.Writer, st store.Store, keys *seal.Keyring, release string) (*Summary, error) {
	h := Header{Format: Format, Content: store.ContentVersion, Release: release, Installation: st.Installation()}
	err := st.Read(ctx, func(r store.Reader) (err error) {
		h.CreatedAt = r.Now()
		h.Keyring, err = r.Meta(seal.MetaKey)
		return err
	})
	if err != nil {
		return nil, err
	}
	key, err := keys.BackupKey()
	if err != nil {
		return nil, err
	}
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	out := &writer{sum: sha256.New(), records: map[string]int64{}}
	out.lines = json.NewEncoder(io.MultiWriter(zip, out.sum))
	out.lines.SetEscapeHTML(false)
	if err := out.lines.Encode(h); err != nil {
		return nil, err
	}
	if err := st.Export(ctx, out.record); err != nil {
		return nil, err
	}
	if err := out.end(key); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return &Summary{Installation: h.Installation, CreatedAt: h.CreatedAt, Release: h.Release, Records: out.records, Authentic: true}, nil
}

type writer struct {
	lines   *json.Encoder
	sum     hash.Hash
	records map[string]int64
}

func (w *writer) record(r *store.Record) error {
	w.records[r.Kind()]++
	if r.Secret != nil && len(r.Secret.Doc) == 0 {
		r.Secret.Doc = nil // which is JSON's null
	}
	return w.lines.Encode(r)
}

func (w *writer) end(key []byte) error {
	sum := w.sum.Sum(nil)
	return w.lines.Encode(line{End: &end{Records: w.records, SHA256: sum, MAC: authenticate(key, sum)}})
}

func authenticate(key, sum []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(sum)
	return mac.Sum(nil)
}

// Why a backup cannot be read.
var (
	ErrDamaged = errors.New("read the backup: it is damaged or was cut off; take another copy of it, or an earlier one")
	ErrForged  = errors.New("read the backup: it is not what a server with this seal key wrote; do not use it")
)

func newer(what string) error {
	return fmt.Errorf("read the backup: its %s is of a newer release than this one; restore it with that release", what)
}
