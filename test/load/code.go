package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// code runs the Go benchmarks of what every request passes.
func (b *bench) code(ctx context.Context) error {
	b.say("Go benchmarks")
	run := []string{"test", "-run", "^$", "-bench", "^(BenchmarkDecision|BenchmarkTokenLookup|BenchmarkAuditEntry)$", "-benchmem",
		"./internal/policy", "./internal/access", "./internal/audit"}
	out, err := exec.CommandContext(ctx, "go", run...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(run, " "), err, out)
	}
	pkg := ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if path, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = path[strings.LastIndexByte(path, '/')+1:]
		}
		// A result is the name, how often it ran, and figures with their units.
		columns := strings.SplitN(line, "\t", 3)
		if len(columns) == 3 && strings.HasPrefix(line, "Benchmark") {
			b.report.figure("code", pkg+": "+strings.TrimSpace(columns[0]), strings.Join(strings.Fields(columns[2]), " "), "")
		}
	}
	return nil
}
