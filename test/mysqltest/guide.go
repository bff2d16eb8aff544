package mysqltest

import (
	"strings"

	"github.com/scaivault/scaivault/test/servertest"
)

// SetUp makes exactly the root that the guide tells an administrator to make, under a name of its own and
// for a schema of its own where they are not the guide's.
func (s *Server) SetUp(t TB, root, schema string) {
	t.Helper()
	blocks, err := servertest.Guide("mysql.md", s.Kind)
	if err != nil {
		t.Fatalf("make the root of the guide: %v", err)
	}
	ours := strings.NewReplacer("'"+servertest.GuideRoot+"'", "'"+root+"'", " app.", " "+schema+".")
	for statement := range strings.SplitSeq(strings.TrimSpace(blocks[0]), ";\n") {
		s.Exec(t, ours.Replace(strings.TrimSuffix(statement, ";")))
	}
}
