package sqlite

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/scaivault/scaivault/internal/store/sqlite/vfs"
)

// pageSize is SQLite's, of every database that we make.
const pageSize = 4096

// disk stands between SQLite and the files of the store. SQLite believes its disk; this does not.
//
// What is read must be what was written: each page of the database has a checksum, in a file of its
// own, and each page of the WAL that this process wrote has one in memory. A page that differs is
// not handed on.
//
// What could not be flushed is lost: after a failed flush the operating system takes the data for
// written, and the next flush succeeds. So nothing counts after one, until the process has begun
// anew with what the files then hold.
type disk struct {
	log   *slog.Logger
	under vfs.Layer // nil: nothing
	sums  *sums
	epoch int64      // of the database before it was opened
	ended chan error // the store can only be opened anew

	failed  atomic.Pointer[error]
	damaged atomic.Pointer[error]

	mu  sync.Mutex
	wal map[int64]uint32 // checksums of pages in the WAL by their offset
}

var (
	errFlush  = errors.New("the disk failed to flush what was written: nothing is certain until the server has been started again")
	errDamage = errors.New("the disk gave back another page than was written")
)

// openDisk looks at the files of a store before SQLite does.
func openDisk(ctx context.Context, database string, cfg Config) (*disk, error) {
	mended, err := mendWAL(database + "-wal")
	if err != nil {
		return nil, err
	}
	if len(mended) > 0 {
		cfg.Logger.Warn("store: single wrong bits of the log were set right. After a power cut they are writes that were lost; else the disk fails: replace it",
			"file", database+"-wal", "where", mended)
	}
	epoch, err := peekEpoch(ctx, database)
	if err != nil {
		return nil, err
	}
	d := &disk{log: cfg.Logger, under: cfg.Disk, ended: make(chan error, 1), epoch: epoch, wal: map[int64]uint32{}}
	d.sums, err = openSums(database, epoch, cfg.Disk, cfg.Logger)
	return d, err
}

// layer is what SQLite opens its files through.
func (d *disk) layer(path string, f vfs.File) vfs.File {
	if d.under != nil {
		f = d.under(path, f)
	}
	f = &flushed{File: f, disk: d, path: path}
	switch path {
	case d.sums.database:
		return &page{File: f, disk: d}
	case d.sums.database + "-wal":
		return &frame{File: f, disk: d}
	}
	return f
}

// fail ends the store: it acknowledges nothing any more.
func (d *disk) fail(what string) {
	err := fmt.Errorf("%w (%s)", errFlush, what)
	if d.failed.CompareAndSwap(nil, &err) {
		d.log.Error("store: a flush to disk failed", "file", what)
		d.ended <- err
	}
}

// damage refuses a page, and says so of the store as a whole.
func (d *disk) damage(file string, offset int64) vfs.Code {
	err := fmt.Errorf("%w: %s, page at byte %d", errDamage, file, offset)
	d.damaged.CompareAndSwap(nil, &err)
	d.log.Error("store: damaged page; what is on it is refused. Check the disk, and restore from a backup", "file", file, "offset", offset)
	return vfs.BadData
}

// well tells what is known against the disk.
func (d *disk) well() error {
	for _, known := range []*error{d.failed.Load(), d.damaged.Load()} {
		if known != nil {
			return *known
		}
	}
	return nil
}

// flushed is a file whose failed flush ends the store. SQLite itself ignores one in a checkpoint
// that it makes by the way.
type flushed struct {
	vfs.File
	disk *disk
	path string
}

// Sync implements vfs.File.
func (f *flushed) Sync() vfs.Code {
	code := f.File.Sync()
	if code != vfs.OK {
		f.disk.fail(f.path)
	}
	return code
}

// page is the database file. Only whole pages are written to it; the few reads of less are of the
// header, which is read again as a page before anything is done by it.
type page struct {
	vfs.File
	disk *disk
}

// Read implements vfs.File.
func (f *page) Read(p []byte, offset int64) vfs.Code {
	code := f.File.Read(p, offset)
	if code != vfs.OK || len(p) != pageSize {
		return code
	}
	ok, code := f.disk.sums.match(offset/pageSize, p)
	if code == vfs.OK && !ok {
		return f.disk.damage(f.disk.sums.database, offset)
	}
	return code
}

// Write implements vfs.File.
func (f *page) Write(p []byte, offset int64) vfs.Code {
	code := f.File.Write(p, offset)
	if code == vfs.OK {
		f.disk.sums.note(offset/pageSize, p)
	}
	return code
}

// Sync implements vfs.File. The checksums are flushed first: as long as the flush of the pages has
// not returned, SQLite reads all of them from the WAL.
func (f *page) Sync() vfs.Code {
	if code := f.disk.sums.flush(); code != vfs.OK {
		return code
	}
	return f.File.Sync()
}

// frame is the WAL, which is written in the headers of frames and the pages of frames.
type frame struct {
	vfs.File
	disk *disk
}

// Read implements vfs.File.
func (f *frame) Read(p []byte, offset int64) vfs.Code {
	code := f.File.Read(p, offset)
	if code != vfs.OK || len(p) != pageSize {
		return code
	}
	f.disk.mu.Lock()
	want, known := f.disk.wal[offset]
	f.disk.mu.Unlock()
	if known && want != crc32.ChecksumIEEE(p) {
		return f.disk.damage(f.disk.sums.database+"-wal", offset)
	}
	return code
}

// Write implements vfs.File.
func (f *frame) Write(p []byte, offset int64) vfs.Code {
	f.disk.mu.Lock()
	delete(f.disk.wal, offset)
	f.disk.mu.Unlock()
	code := f.File.Write(p, offset)
	if code == vfs.OK && len(p) == pageSize {
		f.disk.mu.Lock()
		f.disk.wal[offset] = crc32.ChecksumIEEE(p)
		f.disk.mu.Unlock()
	}
	return code
}

// Truncate implements vfs.File.
func (f *frame) Truncate(size int64) vfs.Code {
	f.disk.mu.Lock()
	for offset := range f.disk.wal {
		if offset+pageSize > size {
			delete(f.disk.wal, offset)
		}
	}
	f.disk.mu.Unlock()
	return f.File.Truncate(size)
}
