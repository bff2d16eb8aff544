package docs_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/mysqltest"
)

// The guide to MySQL and MariaDB works as it stands, on each: its root, its engine, its
// role, and a command with an account that is gone afterwards.
func TestMySQLGuide(t *testing.T) {
	t.Parallel()
	const guide, address = "../../docs/engines/mysql.md", "127.0.0.1:3306"
	all, count := blocks(t, guide)
	if count["mysql"] != 1 || count["mariadb"] != 1 || count["sh"] != 1 || len(all) != count["mysql"]+count["mariadb"]+count["sh"]+count["json"] {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := mysqltest.Start(t, kind)
			server.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.orders (note TEXT)", "INSERT INTO app.orders VALUES ('read with a credential')")
			v := &vault{bin: build(t)}
			v.startServer(t)
			for _, b := range all {
				switch b.language {
				case kind:
					for _, statement := range strings.Split(b.text, ";\n") {
						if statement = strings.TrimSpace(statement); statement != "" {
							server.Exec(t, strings.TrimSuffix(statement, ";"))
						}
					}
				case "sh":
					if !strings.Contains(b.text, address) {
						t.Fatalf("%s does not show the address %s", guide, address)
					}
					dir := t.TempDir()
					cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", strings.ReplaceAll(b.text, address, server.Addr())))
					cmd.Env = []string{"PATH=" + v.bin + ":" + mysqltest.Tools() + ":" + os.Getenv("PATH"), "HOME=" + dir, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken}
					cmd.WaitDelay = time.Minute
					out, err := cmd.CombinedOutput()
					if err != nil || !strings.Contains(string(out), "read with a credential\n") {
						t.Fatalf("%v:\n%s", err, out)
					}
				}
			}
			if rows := server.Query(t, "SELECT User FROM mysql.user WHERE User LIKE 'v\\_%'"); len(rows) > 0 {
				t.Errorf("accounts are still there: %v", rows)
			}
		})
	}
}
