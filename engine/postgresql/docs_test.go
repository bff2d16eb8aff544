package postgresql_test

import (
	"os"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine/postgresql"
)

// TestDocsShowTheSetup: the statements in the guide are the ones that are
// printed, and those are what every test here makes its root by.
func TestDocsShowTheSetup(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/engines/postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := postgresql.SetupSQL(postgresql.Setup{Root: "scaivault", Database: "support", Owner: "app", Way: postgresql.SetupCreateRole})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), "```sql\n"+printed+"```") {
		t.Errorf("the guide does not show what is printed:\n%s", printed)
	}
}
