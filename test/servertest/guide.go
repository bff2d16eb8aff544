package servertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The root that every guide to an engine makes.
const (
	GuideRoot     = "scaivault"
	GuidePassword = "a-long-one"
)

// Guide is the text of the blocks of a language on a page of docs/engines, in its order: there is one at
// least.
func Guide(page, language string) ([]string, error) {
	dir, err := Checkout()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "docs", "engines", page))
	if err != nil {
		return nil, fmt.Errorf("read a guide: %w", err)
	}
	var blocks []string
	for _, rest := range strings.Split(string(text), "\n```"+language+"\n")[1:] {
		block, _, closed := strings.Cut(rest, "\n```")
		if !closed {
			return nil, fmt.Errorf("read a guide: a block of %s is not closed", page)
		}
		blocks = append(blocks, block+"\n")
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("read a guide: %s shows no %s", page, language)
	}
	return blocks, nil
}
