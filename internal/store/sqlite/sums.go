package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"
)

// sums are the checksums of the database's pages, in a file beside it: a header of 16 bytes (a
// word, the epoch), then 4 bytes a page, 0 for a page whose checksum is not known. Nothing of it is
// held in memory but what waits for a flush, so it costs the same however large the store is.
//
// SQLite has no checksums of its own, so a flipped bit is an account's other end, or a row that its
// index does not find. They are kept outside the pages, since what is inside belongs to SQLite, and
// to the former release: that one writes pages and knows no checksums. It also begins an epoch with
// each opening, as every release does, so a store that it has had is known by the epoch, and its
// checksums begin anew.
type sums struct {
	database string
	file     *os.File

	mu      sync.Mutex
	waiting map[int64]uint32 // of pages written since the last flush
}

const sumsWord = "scvsums1"

// openSums opens the checksums of a database which is in the epoch.
func openSums(database string, epoch int64) (*sums, error) {
	file, err := os.OpenFile(database+"-sum", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open page checksums: %w", err)
	}
	s := &sums{database: database, file: file, waiting: map[int64]uint32{}}
	var header [16]byte
	_, err = file.ReadAt(header[:], 0)
	known := int64(binary.BigEndian.Uint64(header[8:]))
	// The next epoch is written before it begins: the end may come in between.
	if err == nil && string(header[:8]) == sumsWord && (known == epoch || known == epoch+1) {
		return s, nil
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.Join(fmt.Errorf("read page checksums: %w", err), file.Close())
	}
	if err := file.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("begin page checksums: %w", err), file.Close())
	}
	return s, nil
}

// begin notes the epoch that is about to begin.
func (s *sums) begin(epoch int64) error {
	header := binary.BigEndian.AppendUint64([]byte(sumsWord), uint64(epoch))
	if _, err := s.file.WriteAt(header, 0); err != nil {
		return fmt.Errorf("write page checksums: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("flush page checksums: %w", err)
	}
	return nil
}

// pageSum is the checksum of a page, never 0.
func pageSum(p []byte) uint32 { return max(crc32.ChecksumIEEE(p), 1) }

func place(page int64) int64 { return 16 + 4*page }

// match tells whether a page is the one that was written, as far as that is known.
func (s *sums) match(page int64, p []byte) (bool, error) {
	s.mu.Lock()
	want, ok := s.waiting[page]
	s.mu.Unlock()
	if !ok {
		var stored [4]byte
		if _, err := s.file.ReadAt(stored[:], place(page)); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		want = binary.BigEndian.Uint32(stored[:])
	}
	return want == 0 || want == pageSum(p), nil
}

// note takes the checksum of a page that was written. What is not a page makes those it touches
// unknown.
func (s *sums) note(page int64, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[page] = 0
	if len(p) == pageSize {
		s.waiting[page] = pageSum(p)
	}
}

// flush makes what was noted durable.
func (s *sums) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	pages := make([]int64, 0, len(s.waiting))
	for page := range s.waiting {
		pages = append(pages, page)
	}
	slices.Sort(pages)
	for len(pages) > 0 {
		n := 1 // pages in a row are one write
		for n < len(pages) && pages[n] == pages[0]+int64(n) {
			n++
		}
		b := make([]byte, 0, 4*n)
		for _, page := range pages[:n] {
			b = binary.BigEndian.AppendUint32(b, s.waiting[page])
		}
		if _, err := s.file.WriteAt(b, place(pages[0])); err != nil {
			return err
		}
		pages = pages[n:]
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	clear(s.waiting)
	return nil
}

func (s *sums) close() error { return s.file.Close() }
