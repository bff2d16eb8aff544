package mongodb

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/engine"
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
