package mongotest

import (
	"fmt"
	"os"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Guide are the commands that the blocks for mongosh of a page show, in its order. All of them are of
// database admin.
func Guide(t TB, page string) []bson.D {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatalf("read a guide: %v", err)
	}
	var commands []bson.D
	for _, block := range strings.Split(string(text), "```js\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, statement := range strings.Split(block, `db.getSiblingDB("admin").runCommand(`)[1:] {
			document, rest, closed := strings.Cut(statement, ")\n")
			var command bson.D
			if err := bson.UnmarshalExtJSON([]byte(document), false, &command); err != nil || !closed || strings.TrimSpace(rest) != "" {
				t.Fatalf("%s shows what is no command: %s: %v", page, statement, err)
			}
			commands = append(commands, command)
		}
	}
	return commands
}

// SetUp runs the commands of a page that make its root, and gives the root's name: another one than the
// page's on a real MongoDB, which tests share.
func (s *Server) SetUp(t TB, page, root string) string {
	t.Helper()
	name := root
	if Real() != "" {
		name = fmt.Sprintf("%s-%s", root, bson.NewObjectID().Hex())
	}
	made := 0
	for _, command := range Guide(t, page) {
		if kind := command[0].Key; kind != "createRole" && kind != "createUser" {
			continue // what other cases need besides
		}
		text, err := bson.MarshalExtJSON(command, false, false)
		if err == nil {
			command = nil
			err = bson.UnmarshalExtJSON([]byte(strings.ReplaceAll(string(text), `"`+root+`"`, `"`+name+`"`)), false, &command)
		}
		if err != nil {
			t.Fatalf("read a command of %s: %v", page, err)
		}
		s.Do(t, adminDB, command)
		made++
	}
	if made != 2 {
		t.Fatalf("%s makes no root", page)
	}
	t.Cleanup(func() {
		if Real() != "" {
			_, _ = s.Try(adminDB, bson.D{{Key: "dropUser", Value: name}})
			_, _ = s.Try(adminDB, bson.D{{Key: "dropRole", Value: name}})
		}
	})
	return name
}
