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

// checkWAL refuses a WAL in which one bit is wrong. SQLite takes the first frame whose checksum does
// not match for the end, as after a power cut in the middle of a write, and drops all that follows,
// acknowledged or not. What a power cut leaves unwritten differs in more than one bit; so where a
// single flipped bit makes header or frame match again, the disk has flipped it.
func checkWAL(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the store's log: %w", err)
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<18)
	header := make([]byte, walHeader)
	if _, err := io.ReadFull(r, header); err != nil {
		return ended(err)
	}
	w, ok := openWAL(header)
	if !ok {
		return flipped(header, path, "the header", func(b []byte) bool { _, ok := openWAL(b); return ok })
	}
	frame := make([]byte, frameHeader+pageSize)
	for n := 1; ; n++ {
		if _, err := io.ReadFull(r, frame); err != nil {
			return ended(err)
		}
		if !w.matches(frame) {
			return flipped(frame, path, fmt.Sprintf("frame %d", n), w.matches)
		}
		w.one, w.two = w.sum(w.one, w.two, frame[:8], frame[frameHeader:])
	}
}

// ended tells the end of the file, where nothing is left to look at, from a failure.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("look at the store's log: %w", err)
}

// flipped fails when b, which does not match, does so with one bit turned over.
func flipped(b []byte, path, what string, matches func(b []byte) bool) error {
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if matches(b) {
			return fmt.Errorf("open store: %s is damaged: one bit of %s is wrong, and what was written after it would be lost. Copy the folder to another disk and restore from a backup; moving the file away opens the store without what it holds", path, what)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	return nil
}

// wal is what the frames of a WAL must match: its salt, and the checksum of all before.
type wal struct {
	order    binary.ByteOrder
	salt     [8]byte
	one, two uint32
}

// openWAL reads the header of a WAL.
func openWAL(b []byte) (w wal, ok bool) {
	magic := binary.BigEndian.Uint32(b)
	w.order = binary.LittleEndian
	if magic&1 != 0 {
		w.order = binary.BigEndian
	}
	w.salt = [8]byte(b[16:24])
	w.one, w.two = w.sum(0, 0, b[:24])
	return w, magic&^1 == walMagic && binary.BigEndian.Uint32(b[4:]) == walVersion && binary.BigEndian.Uint32(b[8:]) == pageSize &&
		binary.BigEndian.Uint32(b[24:]) == w.one && binary.BigEndian.Uint32(b[28:]) == w.two
}

// matches tells whether a frame is the next one. Of an older use of the file, which is what mostly
// follows the last frame, not even the salt is alike.
func (w *wal) matches(frame []byte) bool {
	if [8]byte(frame[8:16]) != w.salt {
		return false
	}
	one, two := w.sum(w.one, w.two, frame[:8], frame[frameHeader:])
	return binary.BigEndian.Uint32(frame[16:]) == one && binary.BigEndian.Uint32(frame[20:]) == two
}

func (w *wal) sum(one, two uint32, parts ...[]byte) (uint32, uint32) {
	for _, b := range parts {
		for ; len(b) >= 8; b = b[8:] {
			one += w.order.Uint32(b) + two
			two += w.order.Uint32(b[4:]) + one
		}
	}
	return one, two
}
