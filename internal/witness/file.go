package witness

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"strings"

	"github.com/scaivault/scaivault/internal/folder"
)

// prefix tells a witness from any other file, and its form from later ones. A checksum and the mark
// as JSON follow: a flipped bit must not make the store look older than it is.
const prefix = "scaivault-witness-1:"

// readFile reads a witness; no mark when there is none.
func readFile(path string) (mark, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, err
	}
	text, ours := strings.CutPrefix(strings.TrimSuffix(string(raw), "\n"), prefix)
	sum, doc, _ := strings.Cut(text, ":")
	var m mark
	if !ours || sum != checksum(doc) || json.Unmarshal([]byte(doc), &m) != nil {
		return mark{}, errors.New("it is damaged, or no witness")
	}
	return m, nil
}

// writeFile puts the mark in the place of a former one, durably.
func writeFile(path string, m mark) error {
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return folder.Replace(path, prefix+checksum(string(doc))+":"+string(doc)+"\n")
}

func checksum(doc string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(doc))) }
