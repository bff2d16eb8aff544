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
	for line := range strings.Lines(string(out)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok || !strings.HasPrefix(name, "Benchmark") {
			continue
		}
		_, figures, _ := strings.Cut(strings.TrimSpace(rest), "\t")
		b.report.figure("code", strings.TrimSpace(name), strings.Join(strings.Fields(figures), " "), "")
	}
	return nil
}
