package docs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/scaivault/scaivault/test/mongotest"
)

// The guide to MongoDB works as it stands: its root, its engine, its role, and a command with a user
// that is gone afterwards.
func TestMongoDBGuide(t *testing.T) {
	t.Parallel()
	const guide, address = "../../docs/engines/mongodb.md", "127.0.0.1:27017"
	all, count := blocks(t, guide)
	if count["js"] != 2 || count["sh"] != 1 || len(all) != count["js"]+count["sh"]+count["json"] {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	server := mongotest.Start(t, mongotest.AsCluster(1))
	for _, command := range mongotest.Guide(t) {
		server.Do(t, "admin", command)
	}
	server.Do(t, "app", bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{bson.D{{Key: "said", Value: "read with a credential"}}}}})
	v := &vault{bin: build(t)}
	v.startServer(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, mongoshName))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.language != "sh" {
			continue
		}
		if !strings.Contains(b.text, address) {
			t.Fatalf("%s does not show the address %s", guide, address)
		}
		cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", strings.ReplaceAll(b.text, address, server.Addr())))
		cmd.Env = []string{"PATH=" + dir + ":" + v.bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken}
		cmd.WaitDelay = time.Minute
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "read with a credential") {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	if slices.ContainsFunc(server.Users(t), func(name string) bool { return strings.HasPrefix(name, "v_") }) {
		t.Error("the credential's user is still there")
	}
}

// mongoshName is the name under which this program is MongoDB's shell, as far as the guide uses it: the
// shell itself cannot be had here.
const mongoshName = "mongosh"

func mongosh(arguments []string) int {
	want := []string{"--quiet", "--eval", `db.getSiblingDB("app").things.findOne()`}
	if len(arguments) == 0 || !slices.Equal(arguments[1:], want) {
		fmt.Fprintln(os.Stderr, "this is not mongosh: it takes a URI and", want)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(arguments[0]))
	var found bson.Raw
	if err == nil {
		found, err = client.Database("app").Collection("things").FindOne(ctx, bson.D{}).Raw()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(found)
	return 0
}
