package mongodb

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mongotest"
)

// zone is a resolver of our own.
type zone struct {
	records []*net.SRV
	texts   []string
	down    bool
	asked   int
}

func (z *zone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	z.asked++
	if z.down || service != "mongodb" || proto != "tcp" || name != "cluster.example.com" {
		return "", nil, errors.New("no such host")
	}
	return name, z.records, nil
}

func (z *zone) LookupTXT(context.Context, string) ([]string, error) { return z.texts, nil }

// TestDirectory: the hosts are those of the records, asked for again when they are old, and kept while
// nobody answers.
func TestDirectory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		z := &zone{records: []*net.SRV{{Target: "b.example.com.", Port: 27017}, {Target: "a.example.com.", Port: 27018}}, texts: []string{"replicaSet=rs0&authSource=users"}}
		d := &directory{name: "cluster.example.com", lookup: z}
		p, err := d.list(t.Context())
		if err != nil || !slices.Equal(p.hosts, []string{"a.example.com:27018", "b.example.com:27017"}) || p.set != "rs0" || p.authSource != "users" {
			t.Fatalf("%+v, %v", p, err)
		}
		z.records = z.records[:1]
		if p, _ := d.list(t.Context()); len(p.hosts) != 2 || z.asked != 1 {
			t.Errorf("asked %d times in a moment: %v", z.asked, p.hosts)
		}
		time.Sleep(srvAge)
		if p, err := d.list(t.Context()); err != nil || len(p.hosts) != 1 {
			t.Errorf("after a minute: %v, %v", p.hosts, err)
		}
		z.down = true
		time.Sleep(srvAge)
		if p, err := d.list(t.Context()); err != nil || len(p.hosts) != 1 {
			t.Errorf("while nobody answers: %v, %v", p.hosts, err)
		}
	})
}

func TestDirectoryRefuses(t *testing.T) {
	t.Parallel()
	good := []*net.SRV{{Target: "a.example.com.", Port: 27017}}
	for name, c := range map[string]struct {
		zone zone
		kind engine.Kind
		says string
	}{
		"no records":        {zone{}, engine.Unreachable, "SRV"},
		"nobody":            {zone{down: true}, engine.Unreachable, "SRV"},
		"another domain":    {zone{records: []*net.SRV{{Target: "a.example.org.", Port: 1}}}, engine.Misconfigured, "outside"},
		"a longer domain":   {zone{records: []*net.SRV{{Target: "evilexample.com.", Port: 1}}}, engine.Misconfigured, "outside"},
		"two texts":         {zone{records: good, texts: []string{"a=b", "c=d"}}, engine.Misconfigured, "TXT"},
		"a text that is no": {zone{records: good, texts: []string{"%zz"}}, engine.Misconfigured, "TXT"},
	} {
		d := &directory{name: "cluster.example.com", lookup: &c.zone}
		if _, err := d.list(t.Context()); engine.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	atlas := &directory{name: "c.abcde.mongodb.net", lookup: &anyZone{[]*net.SRV{{Target: "s.abcde.mongodb.net.", Port: 27017}}}}
	if _, err := atlas.list(t.Context()); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "Atlas") {
		t.Errorf("Atlas: %v", err)
	}
}

// anyZone has the same records for every name.
type anyZone struct{ records []*net.SRV }

func (z *anyZone) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", z.records, nil
}
func (z *anyZone) LookupTXT(context.Context, string) ([]string, error) { return nil, nil }

// TestFollowsTheDirectory: what is behind the name moves, and the engine goes with it.
func TestFollowsTheDirectory(t *testing.T) {
	t.Parallel()
	server := mongotest.Start(t, mongotest.AsCluster(2))
	root := server.SetUp(t)
	for _, command := range mongotest.Guide(t)[2:] {
		server.Do(t, adminDB, command)
	}
	first, second := server.Members[0], server.Members[1]
	z := &zone{records: []*net.SRV{{Target: "first.example.com.", Port: 1}}}
	made, err := open(t.Context(), engine.Options{
		Installation: "installation-1", EngineID: "eng_1", Node: "node-1", Epoch: 1,
		Config: json.RawMessage(`{"connection_url": "mongodb+srv://{{username}}:{{password}}@cluster.example.com/?tls=false", "allow_plaintext": true, "root_credentials_path": "r"}`),
		Root:   map[string]statement.Secret{"username": statement.Secret(root), "password": "a-long-one"},
		Namer:  statement.NewNamer("installation-1", []byte("key of the test"), nil),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			var d net.Dialer
			switch host, _, _ := net.SplitHostPort(address); host {
			case "first.example.com":
				address = first.Addr()
			case "second.example.com":
				address = second.Addr()
			}
			return d.DialContext(ctx, network, address)
		},
	}, z)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	e := made.(*Engine)
	if h := e.Check(t.Context()); h.Status != "healthy" {
		t.Errorf("health: %+v", h)
	}
	z.records[0].Target = "second.example.com."
	first.Stop()
	e.connector.srv.asked = time.Now().Add(-srvAge)
	if h := e.Check(t.Context()); h.Status != "healthy" {
		t.Errorf("health after the name leads elsewhere: %+v", h)
	}
	if s, err := e.whole(t.Context()); err != nil || !slices.Equal(s.hosts, []string{"second.example.com:1"}) {
		t.Errorf("connected to %v, %v", s.hosts, err)
	}
}
