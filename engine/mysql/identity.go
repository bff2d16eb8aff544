package mysql

import (
	"context"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// Neither server has an identity that a failover keeps: server_uuid is each
// replica's own, and MariaDB has none. So the source is given one: an account that
// is locked, has no password and no right, whose name is drawn once and signed by
// us. It is replicated as all accounts are; a server that was set up anew does not
// have it. Where source_id is configured, the operator's word stands in its place.
const (
	identityPrefix = "sv_id_"
	identityDigits = 15 // of which the first ten are the time
	markerHost     = "localhost"
)

// identify finds the source's identity, or gives it one. Names sort by the time at
// which they were drawn, so that of two nodes that do this at once the earlier
// one's holds.
func (e *Engine) identify(ctx context.Context, c *conn) error {
	if e.source = e.config.SourceID; e.source != "" {
		return nil
	}
	marker, err := e.findIdentity(ctx, c)
	if err != nil {
		return err
	}
	if marker == "" {
		drawn := strings.ToLower(strings.TrimPrefix(ident.New("src"), "src_"))[:identityDigits]
		name := e.options.Namer.Mark(identityPrefix + drawn)
		_, err := c.guarded(ctx, "mark the source as known", []fence{e.sameServer()},
			"CREATE USER IF NOT EXISTS "+accountSpec(name, markerHost)+" "+identified(login{e.dialect.plugin(), statement.Secret(e.dialect.noPassword())})+" ACCOUNT LOCK")
		if err != nil {
			return err
		}
		if marker, err = e.findIdentity(ctx, c); err != nil {
			return err
		}
	}
	e.marker, e.source = marker, marker
	return nil
}

// findIdentity is the first of the identities that we gave; empty without one.
func (e *Engine) findIdentity(ctx context.Context, c *conn) (string, error) {
	answer, err := c.guarded(ctx, "look at the source", nil, e.dialect.accountQuery(`User LIKE 'sv\\_id\\_%'`))
	if engine.KindOf(err) == engine.Misconfigured {
		return "", misconfigured("look at the source: root may not see its accounts: "+e.dialect.seeAccounts(statement.QuoteMySQLText(e.root.Username)), err)
	}
	if err != nil {
		return "", err
	}
	var names []string
	for _, a := range readAccounts(answer.last()) {
		if a.host == markerHost && e.options.Namer.OursMark(a.name) {
			names = append(names, a.name)
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	return slices.Min(names), nil
}
