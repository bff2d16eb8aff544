package sqlite

import "github.com/scaivault/scaivault/internal/store/sqlite/vfs"

// layer is what stands between SQLite and the disk.
func (s *Store) layer(disk vfs.Layer) vfs.Layer {
	return func(path string, f vfs.File) vfs.File {
		if disk != nil {
			f = disk(path, f)
		}
		return f
	}
}
