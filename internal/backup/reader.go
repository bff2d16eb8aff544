package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"iter"
	"maps"
	"strings"

	"github.com/scaivault/scaivault/internal/store"
)

// maxLine bounds a line: a version of a secret is the largest there is, of some MiB.
const maxLine = 64 << 20

// Reader reads a backup once, from its beginning to its end.
type Reader struct {
	Header Header

	lines   *bufio.Scanner
	sum     hash.Hash
	records map[string]int64
	whole   bool
}

// Open reads the header of a backup that is decrypted already, and refuses one of a newer release.
func Open(r io.Reader) (*Reader, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, unreadable(err)
	}
	b := &Reader{lines: bufio.NewScanner(zip), sum: sha256.New(), records: map[string]int64{}}
	b.lines.Buffer(make([]byte, 64<<10), maxLine)
	first, err := b.next()
	if err != nil {
		return nil, err
	}
	// Leniently: a newer release's header may say more, and shall say that it is newer.
	if err := json.Unmarshal(first, &b.Header); err != nil || b.Header.Format == 0 {
		return nil, errors.New("read the backup: this is no backup of scaivault")
	}
	switch {
	case b.Header.Format > Format:
		return nil, newer("form")
	case b.Header.Content > store.ContentVersion:
		return nil, newer("content")
	}
	b.hash(first)
	return b, nil
}

// Records are those of the backup, in their order. They end without an error only if the backup is
// whole and, where a key is given (nil: none), authentic: so nothing that is made of them is to be
// used before. They can be ranged over once.
func (b *Reader) Records(key []byte) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for {
			text, err := b.next()
			if err != nil {
				yield(nil, err)
				return
			}
			l, err := decode(text)
			if err == nil && l.End != nil {
				if err = b.finish(l.End, key); err != nil {
					yield(nil, err)
				}
				return
			}
			if err == nil && l.Kind() == "" {
				err = ErrDamaged
			}
			if err != nil {
				yield(nil, err)
				return
			}
			b.hash(text)
			b.records[l.Kind()]++
			if !yield(&l.Record, nil) {
				return
			}
		}
	}
}

// Summary is what the backup held, once Records has ended without an error.
func (b *Reader) Summary(authentic bool) *Summary {
	return &Summary{Installation: b.Header.Installation, CreatedAt: b.Header.CreatedAt, Release: b.Header.Release,
		Records: b.records, Authentic: authentic && b.whole}
}

func (b *Reader) finish(e *end, key []byte) error {
	sum := b.sum.Sum(nil)
	if !hmac.Equal(sum, e.SHA256) || !maps.Equal(e.Records, b.records) {
		return ErrDamaged
	}
	if key != nil && !hmac.Equal(e.MAC, authenticate(key, sum)) {
		return ErrForged
	}
	// What follows the end was not counted.
	if b.lines.Scan() || b.lines.Err() != nil {
		return ErrDamaged
	}
	b.whole = true
	return nil
}

func (b *Reader) next() ([]byte, error) {
	if b.lines.Scan() {
		return b.lines.Bytes(), nil
	}
	if err := b.lines.Err(); err != nil {
		return nil, unreadable(err)
	}
	return nil, ErrDamaged // it ends before its end
}

func (b *Reader) hash(text []byte) {
	b.sum.Write(text)
	b.sum.Write([]byte{'\n'})
}

// decode reads a line strictly: what this release does not know, it would lose.
func decode(text []byte) (*line, error) {
	l := &line{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		if strings.HasPrefix(err.Error(), "json: unknown field") {
			return nil, newer("content")
		}
		return nil, ErrDamaged
	}
	if l.Lease != nil && string(l.Lease.Recipe) == "null" {
		l.Lease.Recipe = nil
	}
	if l.Secret != nil && string(l.Secret.Doc) == "null" {
		l.Secret.Doc = nil
	}
	return l, nil
}

// unreadable tells a file that cannot be read from one that holds something else than it should.
func unreadable(err error) error {
	var disk interface{ Timeout() bool } // *fs.PathError and its like
	if errors.As(err, &disk) {
		return err
	}
	return ErrDamaged
}
