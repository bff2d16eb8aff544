package mongotest

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/test/servertest"
)

// Guide are the commands that the guide's blocks for mongosh show, in its order. All of them are of
// database admin.
func Guide(t TB) []bson.D {
	t.Helper()
	blocks, err := servertest.Guide("mongodb.md", "js")
	if err != nil {
		t.Fatalf("%v", err)
	}
	var commands []bson.D
	for _, block := range blocks {
		for _, statement := range strings.Split(block, `db.getSiblingDB("admin").runCommand(`)[1:] {
			document, rest, closed := strings.Cut(statement, ")\n")
			var command bson.D
			if err := bson.UnmarshalExtJSON([]byte(document), false, &command); err != nil || !closed || strings.TrimSpace(rest) != "" {
				t.Fatalf("the guide shows what is no command: %s: %v", statement, err)
			}
			commands = append(commands, command)
		}
	}
	return commands
}

// SetUp runs the commands of the guide that make its root, and gives the root's name: another one than the
// guide's on a real MongoDB, which tests share.
func (s *Server) SetUp(t TB) string {
	t.Helper()
	name := servertest.GuideRoot
	if Real() != "" {
		name += "-" + bson.NewObjectID().Hex()
	}
	made := 0
	for _, command := range Guide(t) {
		if kind := command[0].Key; kind != "createRole" && kind != "createUser" {
			continue // what other cases need besides
		}
		text, err := bson.MarshalExtJSON(command, false, false)
		if err == nil {
			command = nil
			err = bson.UnmarshalExtJSON([]byte(strings.ReplaceAll(string(text), `"`+servertest.GuideRoot+`"`, `"`+name+`"`)), false, &command)
		}
		if err != nil {
			t.Fatalf("read a command of the guide: %v", err)
		}
		s.Do(t, adminDB, command)
		made++
	}
	if made != 2 {
		t.Fatalf("the guide makes no root")
	}
	t.Cleanup(func() {
		if Real() != "" {
			_, _ = s.Try(adminDB, bson.D{{Key: "dropUser", Value: name}})
			_, _ = s.Try(adminDB, bson.D{{Key: "dropRole", Value: name}})
		}
	})
	return name
}
