package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// The WAL as SQLite writes it (https://www.sqlite.org/fileformat2.html#walformat).
const (
	walHeader   = 32
	frameHeader = 24
	walMagic    = 0x377f0682 // with the lowest bit: words of the checksum are big endian
	walVersion  = 3007000
)

// mendWAL sets single wrong bits of a WAL right and tells where they were. SQLite takes the first
// frame whose checksum does not match for the end, as after a power cut in the middle of a write, and
// drops all that follows, acknowledged or not. Where turning one bit over makes header or frame match
// again, that is what was written: whether the disk flipped the bit, or a write was lost over what had
// been there before and differed in no more. Where it may be one of several bits and the frame behind does
// not tell which, it fails: the checksum is weak in the high bits of words. What is set right is flushed
// before SQLite sees it; done again, it finds nothing.
func mendWAL(path string) (mended []string, err error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the store's log: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	mended, err = mend(file)
	if err == nil && len(mended) > 0 {
		err = file.Sync()
	}
	if err != nil {
		err = fmt.Errorf("look for wrong bits in the store's log, %s: %w", path, err)
	}
	return mended, err
}

// mend goes through the log up to its end: the first frame that no single bit explains.
func mend(file *os.File) (mended []string, err error) {
	r := bufio.NewReaderSize(file, 1<<18)
	at, part := int64(0), make([]byte, walHeader)
	for w := (wal{}); ; part = make([]byte, frameHeader+pageSize) {
		if _, err := io.ReadFull(r, part); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return mended, nil
		} else if err != nil {
			return mended, err
		}
		next, ok := w.next(part)
		if !ok {
			behind, _ := r.Peek(frameHeader + pageSize) // what is shorter matches nothing
			k, err := w.flipped(part, behind)
			if err != nil {
				return mended, fmt.Errorf("at byte %d: %w", at, err)
			} else if k < 0 {
				return mended, nil
			}
			if _, err := file.WriteAt(part[k:k+1], at+int64(k)); err != nil {
				return mended, err
			}
			mended = append(mended, fmt.Sprintf("byte %d", at+int64(k)))
			next, _ = w.next(part)
		}
		w, at = next, at+int64(len(part))
	}
}

var errAmbiguous = errors.New("one bit is wrong, and which one cannot be told. Copy the folder to another disk and restore from a backup; " +
	"moving the log away opens the store without what it holds")

// flipped turns over the one bit of part, which does not match, that makes it match, and tells in which
// byte it is: -1 if there is none. Of several bits it is the one after which the frame behind matches, too.
func (w wal) flipped(part, behind []byte) (k int, err error) {
	var bits, followed []int
	for bit := range 8 * len(part) {
		part[bit/8] ^= 1 << (bit % 8)
		if next, ok := w.next(part); ok {
			bits = append(bits, bit)
			if _, ok := next.next(behind); ok {
				followed = append(followed, bit)
			}
		}
		part[bit/8] ^= 1 << (bit % 8)
	}
	if len(bits) > 1 {
		bits = followed
		if len(bits) != 1 {
			return 0, errAmbiguous
		}
	}
	if len(bits) == 0 {
		return -1, nil
	}
	part[bits[0]/8] ^= 1 << (bits[0] % 8)
	return bits[0] / 8, nil
}

// wal is how far a WAL was read: its salt, and the checksum of all before.
type wal struct {
	order    binary.ByteOrder // nil before the header
	salt     [8]byte
	one, two uint32
}

// next reads on by the header or a frame, and tells whether that matches what was before it. Of an
// older use of the file, which is what mostly follows the last frame, not even the salt is alike.
func (w wal) next(part []byte) (next wal, ok bool) {
	if w.order == nil {
		return openWAL(part)
	}
	if len(part) != frameHeader+pageSize || [8]byte(part[8:16]) != w.salt {
		return w, false
	}
	w.sum(part[:8])
	w.sum(part[frameHeader:])
	return w, binary.BigEndian.Uint32(part[16:]) == w.one && binary.BigEndian.Uint32(part[20:]) == w.two
}

func openWAL(header []byte) (w wal, ok bool) {
	magic := binary.BigEndian.Uint32(header)
	w.order = binary.LittleEndian
	if magic&1 != 0 {
		w.order = binary.BigEndian
	}
	w.salt = [8]byte(header[16:24])
	w.sum(header[:24])
	return w, magic&^1 == walMagic && binary.BigEndian.Uint32(header[4:]) == walVersion && binary.BigEndian.Uint32(header[8:]) == pageSize &&
		binary.BigEndian.Uint32(header[24:]) == w.one && binary.BigEndian.Uint32(header[28:]) == w.two
}

func (w *wal) sum(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		w.one += w.order.Uint32(b) + w.two
		w.two += w.order.Uint32(b[4:]) + w.one
	}
}
