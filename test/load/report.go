package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// report gathers rows and writes them as Markdown.
type report struct {
	head    []string
	ratios  []string
	ages    []string
	scales  []string
	shares  []string
	addeds  []string
	figures map[string][]string // by section
}

// atLeast and atMost tell whether a ratio meets its aim, and how an aim is written.
var (
	atLeast = aimed{"≥", func(ratio, aim float64) bool { return ratio >= aim }}
	atMost  = aimed{"≤", func(ratio, aim float64) bool { return ratio <= aim }}
)

type aimed struct {
	sign string
	met  func(ratio, aim float64) bool
}

// rate adds a row where more is better. An aim of 0 is none.
func (r *report) rate(what, source string, c comparison, aim float64) {
	r.compare(what, source, c, rate, "%.0f", aim, atLeast)
}

// delay adds a row where less is better.
func (r *report) delay(what, source string, c comparison, aim float64) {
	r.compare(what, source, c, p99, "%.1f", aim, atMost)
}

func (r *report) compare(what, source string, c comparison, of func(sample) float64, format string, aim float64, is aimed) {
	ratios := c.ratios(of)
	r.ratios = append(r.ratios, fmt.Sprintf("| %s | %s | "+format+" | "+format+" | **%.2f** | %.2f to %.2f | %s |", what, source,
		medianOf(c.direct, of), medianOf(c.ours, of), median(ratios), ratios[0], ratios[len(ratios)-1], verdict(median(ratios), aim, is)))
}

// age adds a row that compares a young source with one that has lived: ours
// through the server, direct without.
func (r *report) age(what, source string, ours, direct comparison, aim float64) {
	ratios := ours.ratios(rate)
	r.ages = append(r.ages, fmt.Sprintf("| %s | %s | %.0f | %.0f | **%.2f** | %.2f to %.2f | %.2f | %s |", what, source,
		medianOf(ours.direct, rate), medianOf(ours.ours, rate), median(ratios), ratios[0], ratios[len(ratios)-1], median(direct.ratios(rate)),
		verdict(median(ratios), aim, atLeast)))
}

// scale adds a row that compares a server with hardly any leases with one that has many.
func (r *report) scale(what string, many *crowd, c comparison, of func(sample) float64, format string, aim float64, is aimed) {
	ratios := c.ratios(of)
	r.scales = append(r.scales, fmt.Sprintf("| %s | %s | %d | "+format+" | "+format+" | **%.2f** | %.2f to %.2f | %s |", what, many.kind, many.leases,
		medianOf(c.direct, of), medianOf(c.ours, of), median(ratios), ratios[0], ratios[len(ratios)-1], verdict(median(ratios), aim, is)))
}

// share adds a row that compares a server with the slower of its source alone and itself with a
// source that does nothing. An aim of 0 is none.
func (r *report) share(what, source string, t triple, aim float64) {
	shares := t.shares()
	r.shares = append(r.shares, fmt.Sprintf("| %s | %s | %.0f | %.0f | %.0f | **%.2f** | %.2f to %.2f | %s |", what, source,
		medianOf(t.alone, rate), medianOf(t.idle, rate), medianOf(t.ours, rate), median(shares), shares[0], shares[len(shares)-1], verdict(median(shares), aim, atLeast)))
}

// added adds a row of the time that a server takes beyond its source.
func (r *report) added(what, source string, t triple) {
	added := t.added()
	r.addeds = append(r.addeds, fmt.Sprintf("| %s | %s | %.2f | %.2f | %.2f | **%.2f** | %.2f to %.2f | %s |", what, source,
		medianOf(t.alone, p50), medianOf(t.idle, p50), medianOf(t.ours, p50), median(added), added[0], added[len(added)-1], verdict(median(added), t.allowed(), atMost)))
}

func verdict(ratio, aim float64, is aimed) string {
	switch {
	case aim == 0:
		return "shown"
	case is.met(ratio, aim):
		return fmt.Sprintf("%s %.2f: met", is.sign, aim)
	default:
		return fmt.Sprintf("%s %.2f: **missed**", is.sign, aim)
	}
}

// figure adds a row that stands by itself.
func (r *report) figure(section, what, value, aim string) {
	if r.figures == nil {
		r.figures = map[string][]string{}
	}
	r.figures[section] = append(r.figures[section], fmt.Sprintf("| %s | %s | %s |", what, value, aim))
}

// begin says what the figures were measured on.
func (r *report) begin(ctx context.Context, b *bench) error {
	flush, err := flushTime(b.dir)
	if err != nil {
		return err
	}
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return err
	}
	commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	info, err := os.Stat(b.binary)
	if err != nil {
		return err
	}
	r.head = []string{
		fmt.Sprintf("Command: `%s`, %s, took %s.", b.command, b.begun.UTC().Format("2006-01-02 15:04 UTC"), time.Since(b.begun).Round(time.Second)),
		fmt.Sprintf("Machine: %d × %s, %s of memory, Linux %s, a flush to disk takes %.2f ms, load average before the run %s.", runtime.NumCPU(),
			procLine("/proc/cpuinfo", "model name"), procLine("/proc/meminfo", "MemTotal"), text(u.Release[:]), flush, b.load),
		fmt.Sprintf("ScaiVault %s (%.0f MB), %s. Client, server and source share the cores; fsync is on in both stores; everything is on loopback.",
			strings.TrimSpace(string(commit)), float64(info.Size())/1e6, runtime.Version()),
	}
	return nil
}

func (r *report) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	for _, text := range r.head {
		line("%s\n", text)
	}
	table := func(rows []string, columns ...string) {
		if len(rows) == 0 {
			return
		}
		line("| %s |", strings.Join(columns, " | "))
		line("|%s", strings.Repeat(" --- |", len(columns)))
		line("%s\n", strings.Join(rows, "\n"))
	}
	table(r.ratios, "figure", "PostgreSQL", "direct", "ScaiVault", "ratio", "of the rounds", "aim")
	table(r.ages, "figure", "PostgreSQL", "young", "old", "ratio", "of the rounds", "ratio, direct", "aim")
	table(r.scales, "figure", "store", "N", "with 10 leases", "with N", "ratio", "of the rounds", "aim")
	table(r.shares, "figure", "source", "source alone", "ScaiVault, source that does nothing", "ScaiVault", "ratio to the smaller", "of the rounds", "aim")
	table(r.addeds, "figure", "source", "source alone", "ScaiVault, source that does nothing", "ScaiVault", "added", "of the rounds", "aim")
	table(r.figures["age"], "figure", "value", "aim")
	table(r.figures["storm"], "figure", "value", "aim")
	table(r.figures["process"], "figure", "value", "aim")
	table(r.figures["code"], "Go benchmark", "value", "aim")
}

// flushTime is the median of how long a small write takes to be durable, in
// milliseconds.
func flushTime(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "flush"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var took []float64
	for range 200 {
		begun := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(begun).Microseconds())/1000)
	}
	slices.Sort(took)
	return median(took), nil
}

// procLine is the value of the first line of that name.
func procLine(file, name string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(content)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func firstLine(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(content), "\n")
	return line
}

func text(c []int8) string {
	var b []byte
	for _, x := range c {
		if x == 0 {
			break
		}
		b = append(b, byte(x))
	}
	return string(b)
}
