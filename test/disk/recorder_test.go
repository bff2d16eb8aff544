package disk_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/scaivault/scaivault/internal/store/sqlite/vfs"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// recorder writes down what goes to a disk, and what was said meanwhile, in one order. From that it
// makes the files that a power cut at any moment may have left: all that was flushed, and any part
// of the rest.
type recorder struct {
	base  map[string][]byte // what the disk had at the beginning, by the file's name
	fault func(op, name string) vfs.Code

	mu     sync.Mutex
	events []event
	frozen bool
}

// event is a write or a cut of a file, the beginning or the end of a flush, or a word of the test.
type event struct {
	op     string // "write", "truncate", "flush", "flushed", "answered", "witness"
	file   string
	offset int64
	data   []byte // of "witness" the file's content
	begun  int    // of "flushed": the index of its "flush"
	lease  string
}

// record begins with what the folder has.
func record(dir string) *recorder {
	r := &recorder{base: map[string][]byte{}}
	for _, name := range []string{"scaivault.db", "scaivault.db-wal", "scaivault.db-sum"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			r.base[name] = data
		}
	}
	return r
}

func (r *recorder) add(e event) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.frozen {
		r.events = append(r.events, e)
	}
	return len(r.events) - 1
}

// freeze ends the recording: the power is gone, whatever the process still does.
func (r *recorder) freeze() {
	r.mu.Lock()
	r.frozen = true
	r.mu.Unlock()
}

// answered are the leases whose answers had left before the moment.
func (r *recorder) answered(moment int) (ids []string) {
	for _, e := range r.events[:moment] {
		if e.op == "answered" {
			ids = append(ids, e.lease)
		}
	}
	return ids
}

// witness is the newest content of the witness at the moment.
func (r *recorder) witness(moment int) (content []byte) {
	for _, e := range r.events[:moment] {
		if e.op == "witness" {
			content = e.data
		}
	}
	return content
}

// layer is the disk that is recorded.
func (r *recorder) layer(path string, f vfs.File) vfs.File {
	return &recorded{File: f, r: r, name: filepath.Base(path)}
}

type recorded struct {
	vfs.File
	r    *recorder
	name string
}

func (f *recorded) fails(op string) vfs.Code {
	if f.r.fault == nil {
		return vfs.OK
	}
	return f.r.fault(op, f.name)
}

func (f *recorded) Write(p []byte, offset int64) vfs.Code {
	if code := f.fails("write"); code != vfs.OK {
		return code
	}
	f.r.add(event{op: "write", file: f.name, offset: offset, data: slices.Clone(p)})
	return f.File.Write(p, offset)
}

func (f *recorded) Truncate(size int64) vfs.Code {
	f.r.add(event{op: "truncate", file: f.name, offset: size})
	return f.File.Truncate(size)
}

// Sync makes durable what was written before it began.
func (f *recorded) Sync() vfs.Code {
	begun := f.r.add(event{op: "flush", file: f.name})
	if code := f.fails("sync"); code != vfs.OK {
		return code
	}
	code := f.File.Sync()
	if code == vfs.OK {
		f.r.add(event{op: "flushed", file: f.name, begun: begun})
	}
	return code
}

// loss tells what of the writes that were not flushed a power cut takes.
type loss string

const (
	lostAll  loss = "all that was not flushed"
	lostNone loss = "nothing"
	lostTail loss = "all after one write"
	lostSome loss = "any of the writes"
	lostTorn loss = "sectors of the writes"
)

var losses = []loss{lostAll, lostNone, lostTail, lostSome, lostTorn}

// image is what the disk has after a power cut at the moment.
func (r *recorder) image(moment int, l loss, random *rand.Rand) map[string][]byte {
	files := maps.Clone(r.base)
	for name := range files {
		files[name] = slices.Clone(files[name])
	}
	flushed := map[string]int{} // of each file, all before has been flushed
	for _, e := range r.events[:moment] {
		if e.op == "flushed" {
			flushed[e.file] = max(flushed[e.file], e.begun)
		}
	}
	durable := map[int]bool{}
	var open []int
	for i, e := range r.events[:moment] {
		if e.op != "write" && e.op != "truncate" {
			continue
		}
		if durable[i] = i < flushed[e.file]; !durable[i] {
			open = append(open, i)
		}
	}
	tail := random.IntN(len(open) + 1)
	kept := map[int]bool{}
	for n, i := range open {
		switch l {
		case lostAll:
		case lostNone, lostTorn:
			kept[i] = true
		case lostTail:
			kept[i] = n < tail
		case lostSome:
			kept[i] = random.IntN(2) == 0
		}
	}
	for i, e := range r.events[:moment] {
		switch {
		case e.op == "write" && (durable[i] || kept[i] && l != lostTorn):
			files[e.file] = patch(files[e.file], e.data, e.offset)
		case e.op == "write" && kept[i]:
			for from := 0; from < len(e.data); {
				to := min(len(e.data), from+sector-int((e.offset+int64(from))%sector))
				if random.IntN(3) > 0 {
					files[e.file] = patch(files[e.file], e.data[from:to], e.offset+int64(from))
				}
				from = to
			}
		case e.op == "truncate" && (durable[i] || kept[i]):
			files[e.file] = cut(files[e.file], e.offset)
		}
	}
	return files
}

// patch writes data at an offset; what was not there in between is zeros.
func patch(file, data []byte, offset int64) []byte {
	if need := int(offset) + len(data); len(file) < need {
		file = append(file, make([]byte, need-len(file))...)
	}
	copy(file[offset:], data)
	return file
}

func cut(file []byte, size int64) []byte {
	if int64(len(file)) > size {
		return file[:size]
	}
	return patch(file, nil, size)
}

// put writes the files of an image into a folder.
func put(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
