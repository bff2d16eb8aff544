// Package vfs puts a layer of our own between SQLite and the files of a database: what is read,
// written, cut and flushed passes it. The operating system's own VFS does the work; locks and shared
// memory do not pass.
//
// SQLite is C made into Go, so its VFS are structures of C in memory of its own, with functions
// where C has pointers. All of that, and all that is unsafe, is in this file.
package vfs

import (
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Code is a result code of SQLite.
type Code int32

// The codes that layers give.
const (
	OK       Code = sqlite3.SQLITE_OK
	Full     Code = sqlite3.SQLITE_FULL
	Short    Code = sqlite3.SQLITE_IOERR_SHORT_READ // the rest was filled with zeros
	BadRead  Code = sqlite3.SQLITE_IOERR_READ
	BadWrite Code = sqlite3.SQLITE_IOERR_WRITE
	BadSync  Code = sqlite3.SQLITE_IOERR_FSYNC
	BadData  Code = sqlite3.SQLITE_IOERR_DATA // a checksum does not match
)

// File is an open file of a database. SQLite calls one file's methods one at a time, but several
// connections have the same file open.
type File interface {
	Read(p []byte, offset int64) Code
	Write(p []byte, offset int64) Code
	Truncate(size int64) Code
	Sync() Code
	Close() Code
}

// Layer gives what stands before a file: the database itself, its "-wal", its "-journal".
type Layer func(path string, f File) File

// VFS is a registered layer. It stays reachable as long as a connection uses it: SQLite's references
// are none to the garbage collector.
type VFS struct {
	name  string
	layer Layer
	tls   *libc.TLS
	base  uintptr // the operating system's
	own   uintptr
	cname uintptr

	mu      sync.RWMutex
	methods map[uintptr]uintptr // our table of methods for each of the base's
	files   map[uintptr]*handle // by SQLite's file
	funcs   []any               // that the tables point to
	closed  bool
}

// Register makes the layer known to SQLite under a name of its own ("file:…?vfs=name").
func Register(name string, layer Layer) (*VFS, error) {
	v := &VFS{name: name, layer: layer, tls: libc.NewTLS(), methods: map[uintptr]uintptr{}, files: map[uintptr]*handle{}}
	v.base = sqlite3.Xsqlite3_vfs_find(v.tls, 0)
	cname, err := libc.CString(name)
	if err != nil || v.base == 0 {
		v.tls.Close()
		return nil, fmt.Errorf("register VFS %s: %w", name, err)
	}
	v.cname = cname
	v.own = v.allocate(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{}))
	own := at[sqlite3.Tsqlite3_vfs](v.own)
	*own = *at[sqlite3.Tsqlite3_vfs](v.base)
	own.FpNext, own.FzName = 0, v.cname
	own.FxOpen = v.pointer(v.open)
	if rc := sqlite3.Xsqlite3_vfs_register(v.tls, v.own, 0); rc != sqlite3.SQLITE_OK {
		v.free()
		return nil, fmt.Errorf("register VFS %s: SQLite answered %d", name, rc)
	}
	return v, nil
}

// Name is what connections are opened with.
func (v *VFS) Name() string { return v.name }

// Close lets no further connection use the layer; what it takes is given back with the last file.
func (v *VFS) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	sqlite3.Xsqlite3_vfs_unregister(v.tls, v.own)
	v.closed = true
	if len(v.files) == 0 {
		v.free()
	}
}

// forget ends a file, whose close SQLite does not look at any more.
func (v *VFS) forget(file uintptr) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.files, file)
	if v.closed && len(v.files) == 0 {
		v.free()
	}
}

func (v *VFS) free() {
	for _, table := range v.methods {
		libc.Xfree(v.tls, table)
	}
	libc.Xfree(v.tls, v.own)
	libc.Xfree(v.tls, v.cname)
	v.tls.Close()
}

// The functions of C as they are called.
type (
	openFunc     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	transferFunc = func(tls *libc.TLS, file, p uintptr, n int32, offset int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size int64) int32
	syncFunc     = func(tls *libc.TLS, file uintptr, flags int32) int32
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
)

// open lets the base open the file and puts our methods in the place of its own. Files without a
// name are temporary and stay as they are.
func (v *VFS) open(tls *libc.TLS, _, name, file uintptr, flags int32, outFlags uintptr) int32 {
	base := function[openFunc](at[sqlite3.Tsqlite3_vfs](v.base).FxOpen)
	rc := base(tls, v.base, name, file, flags, outFlags)
	methods := at[sqlite3.Tsqlite3_file](file)
	if rc != sqlite3.SQLITE_OK || name == 0 || methods.FpMethods == 0 {
		return rc
	}
	h := &handle{tls: tls, file: file, base: at[sqlite3.Tsqlite3_io_methods](methods.FpMethods)}
	h.top = v.layer(libc.GoString(name), h)
	v.mu.Lock()
	defer v.mu.Unlock()
	methods.FpMethods = v.table(methods.FpMethods)
	v.files[file] = h
	return rc
}

// table is the base's table of methods with ours in it. Version 2 is without memory mapping, round
// which data would come that did not pass.
func (v *VFS) table(base uintptr) uintptr {
	if own := v.methods[base]; own != 0 {
		return own
	}
	own := v.allocate(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{}))
	m := at[sqlite3.Tsqlite3_io_methods](own)
	*m = *at[sqlite3.Tsqlite3_io_methods](base)
	m.FiVersion = min(m.FiVersion, 2)
	m.FxRead = v.pointer(func(tls *libc.TLS, file, p uintptr, n int32, offset int64) int32 {
		return int32(v.handle(tls, file).top.Read(bytes(p, n), offset))
	})
	m.FxWrite = v.pointer(func(tls *libc.TLS, file, p uintptr, n int32, offset int64) int32 {
		return int32(v.handle(tls, file).top.Write(bytes(p, n), offset))
	})
	m.FxTruncate = v.pointer(func(tls *libc.TLS, file uintptr, size int64) int32 {
		return int32(v.handle(tls, file).top.Truncate(size))
	})
	m.FxSync = v.pointer(func(tls *libc.TLS, file uintptr, flags int32) int32 {
		h := v.handle(tls, file)
		h.flags = flags
		return int32(h.top.Sync())
	})
	m.FxClose = v.pointer(func(tls *libc.TLS, file uintptr) int32 {
		defer v.forget(file)
		return int32(v.handle(tls, file).top.Close())
	})
	v.methods[base] = own
	return own
}

func (v *VFS) handle(tls *libc.TLS, file uintptr) *handle {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.files[file]
	h.tls = tls // SQLite makes one call at a time of a file
	return h
}

// handle is the base's file.
type handle struct {
	tls   *libc.TLS // of the call that is going on
	file  uintptr
	base  *sqlite3.Tsqlite3_io_methods
	flags int32 // of the present sync
	top   File  // what SQLite sees
}

// Read implements File.
func (h *handle) Read(p []byte, offset int64) Code {
	return Code(function[transferFunc](h.base.FxRead)(h.tls, h.file, address(p), int32(len(p)), offset))
}

// Write implements File.
func (h *handle) Write(p []byte, offset int64) Code {
	return Code(function[transferFunc](h.base.FxWrite)(h.tls, h.file, address(p), int32(len(p)), offset))
}

// Truncate implements File.
func (h *handle) Truncate(size int64) Code {
	return Code(function[truncateFunc](h.base.FxTruncate)(h.tls, h.file, size))
}

// Sync implements File.
func (h *handle) Sync() Code {
	return Code(function[syncFunc](h.base.FxSync)(h.tls, h.file, h.flags))
}

// Close implements File.
func (h *handle) Close() Code {
	return Code(function[closeFunc](h.base.FxClose)(h.tls, h.file))
}

// WAL tells whether a path is a write-ahead log's.
func WAL(path string) bool { return strings.HasSuffix(path, "-wal") }

func (v *VFS) allocate(size uintptr) uintptr { return libc.Xcalloc(v.tls, 1, libc.Tsize_t(size)) }

// pointer is a function as C keeps it: where Go's function value points to, closures included.
func (v *VFS) pointer(f any) uintptr {
	v.funcs = append(v.funcs, f)
	return uintptr((*[2]unsafe.Pointer)(unsafe.Pointer(&f))[1]) //nolint:gosec // G103: C's
}

// function is the reverse of pointer.
func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) } //nolint:gosec // G103: C's

// at is the structure at an address of C's memory, which the garbage collector does not move.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) } //nolint:gosec // G103: C's

func bytes(p uintptr, n int32) []byte { return unsafe.Slice(at[byte](p), n) } //nolint:gosec // G103: C's

func address(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) } //nolint:gosec // G103: C's
