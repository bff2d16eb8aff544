package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/scaivault/scaivault/internal/store/sqlite/vfs"
)

// sums are the checksums of the database's pages, in a file beside it: a header of 16 bytes (a
// word, the epoch), then 4 bytes a page, 0 for a page whose checksum is not known. Nothing of it is
// held in memory but what waits for a flush, so it costs the same however large the store is.
//
// SQLite has none of its own: a flipped bit is another end of a lease's life, or a row that its index
// does not find. They lie outside the pages, whose inside belongs to SQLite, and to the release
// before, which writes pages and knows no checksums. But every release begins an epoch when it opens
// a store: where the epoch has moved without the checksums, they begin anew.
type sums struct {
	database string
	file     vfs.File

	mu      sync.Mutex
	waiting map[int64]uint32 // of pages written since the last flush
}

const sumsWord = "scvsums1"

// openSums opens the checksums of a database which is in the epoch. Those of another epoch are of no
// use: who opened the store in between knew no checksums, or it is another copy.
func openSums(database string, epoch int64, under vfs.Layer, log *slog.Logger) (*sums, error) {
	path := database + "-sum"
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open page checksums: %w", err)
	}
	s := &sums{database: database, file: vfs.OS(file), waiting: map[int64]uint32{}}
	if under != nil {
		s.file = under(path, s.file)
	}
	var header [16]byte
	if code := s.file.Read(header[:], 0); code != vfs.OK && code != vfs.Short {
		return nil, errors.Join(errors.New("read page checksums: the disk failed"), s.close())
	}
	known := int64(binary.BigEndian.Uint64(header[8:]))
	// The next epoch is written before it begins: the end may come in between.
	if string(header[:8]) == sumsWord && (known == epoch || known == epoch+1) {
		return s, nil
	}
	if epoch > 0 {
		log.Warn("store: the checksums of pages are of another epoch or are lost, and begin anew: what is written from now on is checked",
			"epoch", epoch, "checksums", known)
	}
	if s.file.Truncate(0) != vfs.OK {
		return nil, errors.Join(errors.New("begin page checksums: the disk failed"), s.close())
	}
	return s, nil
}

// begin notes the epoch that is about to begin.
func (s *sums) begin(epoch int64) error {
	header := binary.BigEndian.AppendUint64([]byte(sumsWord), uint64(epoch))
	if s.file.Write(header, 0) != vfs.OK || s.file.Sync() != vfs.OK {
		return errors.New("write page checksums: the disk is full, or failed")
	}
	return nil
}

// pageSum is the checksum of a page, never 0.
func pageSum(p []byte) uint32 { return max(crc32.ChecksumIEEE(p), 1) }

func place(page int64) int64 { return 16 + 4*page }

// match tells whether a page is the one that was written, as far as that is known.
func (s *sums) match(page int64, p []byte) (bool, vfs.Code) {
	s.mu.Lock()
	want, ok := s.waiting[page]
	s.mu.Unlock()
	if !ok {
		var stored [4]byte
		if code := s.file.Read(stored[:], place(page)); code != vfs.OK && code != vfs.Short {
			return false, code
		}
		want = binary.BigEndian.Uint32(stored[:])
	}
	return want == 0 || want == pageSum(p), vfs.OK
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
func (s *sums) flush() vfs.Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return vfs.OK
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
		if code := s.file.Write(b, place(pages[0])); code != vfs.OK {
			return code
		}
		pages = pages[n:]
	}
	if code := s.file.Sync(); code != vfs.OK {
		return code
	}
	clear(s.waiting)
	return vfs.OK
}

func (s *sums) close() error {
	if s.file.Close() != vfs.OK {
		return errors.New("close page checksums: the disk failed")
	}
	return nil
}
