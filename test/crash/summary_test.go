package crash_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// report is what one run came to, line by line.
type report struct {
	world string
	lines []line
	wrong []string // what must not be
}

type line struct{ what, result string }

func (r *report) text(what string, result any) {
	r.lines = append(r.lines, line{what, fmt.Sprint(result)})
}

func (r *report) count(what string, n int) { r.text(what, n) }

// none is a line that must be 0.
func (r *report) none(what string, n int) {
	r.text(what, fmt.Sprintf("**%d**", n))
	if n != 0 {
		r.wrong = append(r.wrong, fmt.Sprintf("%s: %d", what, n))
	}
}

func (r report) String() string {
	var b strings.Builder
	for _, l := range r.lines {
		fmt.Fprintf(&b, "  %-62s %s\n", l.what, l.result)
	}
	return b.String()
}

// summary is one table over the runs, and one over the planted faults, in
// Markdown.
type summary struct {
	reports []report
	planted []plantedFault
}

// plantedFault is a known-bad build, and what caught it.
type plantedFault struct {
	name   string
	checks []string
}

// newSummary is printed at the end of the test, and written to the file that
// SCAIVAULT_CRASH_SUMMARY names.
func newSummary(t *testing.T) *summary {
	t.Helper()
	s := &summary{}
	t.Cleanup(func() {
		t.Logf("summary\n\n%s", s)
		if path := os.Getenv("SCAIVAULT_CRASH_SUMMARY"); path != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(path, []byte(s.String()), 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// add takes up a run, which fails if it found something wrong.
func (s *summary) add(t *testing.T, r report) {
	t.Helper()
	s.reports = append(s.reports, r)
	for _, what := range r.wrong {
		t.Error(what)
	}
}

// String has a column for each run, and a row for each line of any of them.
func (s *summary) String() string {
	var b strings.Builder
	var order []string
	results := map[string][]string{}
	b.WriteString("| |")
	for k, r := range s.reports {
		fmt.Fprintf(&b, " %s |", r.world)
		for _, l := range r.lines {
			if results[l.what] == nil {
				order = append(order, l.what)
				results[l.what] = make([]string, len(s.reports))
			}
			results[l.what][k] = l.result
		}
	}
	fmt.Fprintf(&b, "\n| --- |%s\n", strings.Repeat(" ---: |", len(s.reports)))
	for _, what := range order {
		fmt.Fprintf(&b, "| %s | %s |\n", what, strings.Join(results[what], " | "))
	}
	if len(s.planted) == 0 {
		return b.String()
	}
	caught := 0
	var rows strings.Builder
	for _, f := range s.planted {
		if len(f.checks) > 0 {
			caught++
		}
		fmt.Fprintf(&rows, "| %s | %s |\n", f.name, strings.Join(f.checks, "; "))
	}
	fmt.Fprintf(&b, "\nPlanted faults, caught / planted: **%d / %d**\n\n| fault | caught by |\n| --- | --- |\n%s", caught, len(s.planted), rows.String())
	return b.String()
}
