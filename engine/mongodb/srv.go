package mongodb

import (
	"context"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// srvAge is how old the answer of a directory may be: no shorter than MongoDB's drivers ask again.
const srvAge = time.Minute

// directory is a name whose SRV records list the hosts of a source, and whose TXT record may say how
// to log in there.
type directory struct {
	name   string
	lookup resolver

	mu    sync.Mutex
	last  place
	asked time.Time
}

// resolver is the part of net.Resolver that a directory needs.
type resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// list is what the directory says. While it does not answer, what it said last holds.
func (d *directory) list(ctx context.Context) (place, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.asked) < srvAge {
		return d.last, nil
	}
	p, err := d.ask(ctx)
	switch {
	case err == nil:
		d.last, d.asked = p, time.Now()
	case d.asked.IsZero():
		return p, err
	}
	return d.last, nil
}

func (d *directory) ask(ctx context.Context) (place, error) {
	const attempt = "look the source up: "
	var p place
	_, records, err := d.lookup.LookupSRV(ctx, typeName, "tcp", d.name)
	if err != nil || len(records) == 0 {
		return p, unreachable(attempt+"there is no SRV record _mongodb._tcp."+d.name, err)
	}
	_, domain, _ := strings.Cut(d.name, ".")
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		if !strings.HasSuffix(strings.ToLower(host), "."+strings.ToLower(domain)) {
			return p, misconfigured(attempt+"an SRV record of "+d.name+" leads to "+host+", which is outside of its domain", nil)
		}
		p.hosts = append(p.hosts, net.JoinHostPort(host, strconv.Itoa(int(r.Port))))
	}
	slices.Sort(p.hosts)
	if slices.ContainsFunc(p.hosts, atlas) {
		return p, misconfigured(attempt+"it leads to MongoDB Atlas: "+noAtlas, nil)
	}
	texts, _ := d.lookup.LookupTXT(ctx, d.name) // there need not be one
	if len(texts) > 1 {
		return p, misconfigured(attempt+d.name+" has more than one TXT record", nil)
	}
	for _, text := range texts {
		values, err := url.ParseQuery(text)
		if err != nil {
			return p, misconfigured(attempt+"the TXT record of "+d.name+" cannot be read", nil)
		}
		p.set, p.authSource = values.Get("replicaSet"), values.Get("authSource")
	}
	return p, nil
}
