package vfs

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// OS is a file that SQLite does not know, for what belongs to a database without being part of it:
// the same layers can stand before it.
func OS(f *os.File) File { return osFile{f} }

type osFile struct{ file *os.File }

// Read implements File.
func (f osFile) Read(p []byte, offset int64) Code {
	n, err := f.file.ReadAt(p, offset)
	switch {
	case err == nil:
		return OK
	case errors.Is(err, io.EOF):
		clear(p[n:])
		return Short
	default:
		return BadRead
	}
}

// Write implements File.
func (f osFile) Write(p []byte, offset int64) Code {
	_, err := f.file.WriteAt(p, offset)
	switch {
	case err == nil:
		return OK
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return Full
	default:
		return BadWrite
	}
}

// Truncate implements File.
func (f osFile) Truncate(size int64) Code { return code(f.file.Truncate(size), BadWrite) }

// Sync implements File.
func (f osFile) Sync() Code { return code(f.file.Sync(), BadSync) }

// Close implements File.
func (f osFile) Close() Code { return code(f.file.Close(), BadWrite) }

func code(err error, failed Code) Code {
	if err != nil {
		return failed
	}
	return OK
}
