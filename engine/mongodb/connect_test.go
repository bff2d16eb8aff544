package mongodb

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// errDialled is what the dialer of these tests always says.
var errDialled = errors.New("dialled")

func newTestConnector(t *testing.T, document string) *connector {
	t.Helper()
	c, err := parseConfig(json.RawMessage(document))
	if err != nil {
		t.Fatal(err)
	}
	made, err := newConnector(t.Context(), c, engine.Options{
		Installation: "installation-1", Node: "node-1", Epoch: 1,
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errDialled },
	}, &zone{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestMemberInClear: a source that lists a member elsewhere does not lead there in clear.
func TestMemberInClear(t *testing.T) {
	t.Parallel()
	for document, allowed := range map[string]bool{
		`{"connection_url": "mongodb://{{username}}:{{password}}@localhost", "root_credentials_path": "r"}`:                          false,
		`{"connection_url": "mongodb://{{username}}:{{password}}@localhost", "root_credentials_path": "r", "allow_plaintext": true}`: true,
		`{"connection_url": "mongodb://{{username}}:{{password}}@localhost/?tls=true", "root_credentials_path": "r"}`:                true,
	} {
		c := newTestConnector(t, document)
		if _, err := c.DialContext(t.Context(), "tcp", "10.1.2.3:27017"); errors.Is(err, errDialled) != allowed || !allowed && !strings.Contains(err.Error(), "not encrypted") {
			t.Errorf("%s: %v", document, err)
		}
		if _, err := c.DialContext(t.Context(), "tcp", "127.0.0.1:27017"); !errors.Is(err, errDialled) {
			t.Errorf("%s: this machine: %v", document, err)
		}
	}
}

// TestFenceTime: the age of a fence is in its name.
func TestFenceTime(t *testing.T) {
	t.Parallel()
	e := &Engine{fences: map[string]*fence{}, databases: map[string]bool{}}
	e.options.Namer = statement.NewNamer("installation-1", []byte("key of the test"), nil)
	f := e.fence("app")
	if age := time.Since(fenceTime(f.Role)); age < 0 || age > time.Minute || !e.options.Namer.OursMark(f.Role) {
		t.Errorf("%s is %s old", f.Role, age)
	}
	if again := e.fence("app"); again != f {
		t.Error("two plans of one moment have two fences")
	}
	if other := e.fence("other"); other == f {
		t.Error("two databases have one fence")
	}
	f.since = f.since.Add(-fenceLife - time.Second)
	if again := e.fence("app"); again == f {
		t.Error("a fence is used for longer than its life")
	}
	for _, none := range []string{"", "scaivault-fence-", "scaivault-fence-x-y", "scaivault-source-1"} {
		if time.Since(fenceTime(none)) > time.Minute {
			t.Errorf("%q is taken for an old fence", none)
		}
	}
}
