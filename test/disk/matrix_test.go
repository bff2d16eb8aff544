package disk_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// table counts what became of each fault.
type table struct {
	mu   sync.Mutex
	rows map[string]map[string]int // by fault and moment, then outcome
}

// The outcomes. Only wrong is a failure: an answer that is not true, given without an error.
const (
	right   = "right"   // all that was promised is there
	refused = "refused" // the damage is told, and nothing is given out
	wrong   = "SILENT WRONG"
)

func outcome(err error) string {
	if err != nil {
		return wrong
	}
	return right
}

func (m *table) add(fault, moment, outcome string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := fault + " | " + moment
	if m.rows[key] == nil {
		m.rows[key] = map[string]int{}
	}
	m.rows[key][outcome]++
}

func (m *table) String() string {
	var b strings.Builder
	b.WriteString("| fault | moment | right | refused | silent wrong answers |\n| --- | --- | --- | --- | --- |\n")
	silent := 0
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		row := m.rows[key]
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", key, row[right], row[refused], row[wrong])
		silent += row[wrong]
	}
	fmt.Fprintf(&b, "\nsilent wrong answers: %d\n", silent)
	return b.String()
}

var matrix = &table{rows: map[string]map[string]int{}}

func TestMain(m *testing.M) {
	code := m.Run()
	if full() || testing.Verbose() {
		fmt.Print("\n", matrix)
	}
	os.Exit(code)
}
