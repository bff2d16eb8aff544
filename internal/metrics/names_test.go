package metrics_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Whoever sets an alert by the documentation names a metric that there is.
func TestAlertsNameMetrics(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(text)
	}
	name := regexp.MustCompile(`scaivault_[a-z_]+`)
	known := name.FindAllString(source.String(), -1)
	for _, file := range []string{"../../deploy/alerts.yml", "../../docs/operations.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named := name.FindAllString(string(text), -1)
		if len(named) < 5 {
			t.Fatalf("%s names %d metrics: it was not read", file, len(named))
		}
		for _, n := range named {
			if !slices.Contains(known, n) {
				t.Errorf("%s names %s, which is no metric", file, n)
			}
		}
	}
}
