package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// warnAt is the number of live accounts from which a cost that grows with them is
// worth a warning.
const warnAt = 2000

// Now implements engine.Clock.
func (e *Engine) Now(ctx context.Context) (now time.Time, err error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	err = e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		if err := c.compareClocks(ctx); err != nil {
			return asked("read the source's clock", err)
		}
		now = c.theirs
		return nil
	})
	return now, plainOrNil(err)
}

// Check implements engine.Engine.
func (e *Engine) Check(ctx context.Context) engine.Health {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	h := engine.Health{Status: "healthy", TLS: "none"}
	if e.config.target.tls != tlsOff {
		h.TLS = "verified"
	}
	err := e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		start := time.Now()
		if err := c.compareClocks(ctx); err != nil {
			return asked("check the source", err)
		}
		h.Latency, h.ClockOffset = time.Since(start), c.offset()
		return e.examine(ctx, c, &h)
	})
	if err != nil {
		h.Error = plain(err).Reason
	}
	switch {
	case err == nil && len(h.MissingGrants) == 0:
	case err == nil:
		h.Status, h.Error = "misconfigured", "root lacks a right without which credentials cannot be made or ended"
	case engine.KindOf(err) == engine.WrongServer, engine.KindOf(err) == engine.Misconfigured:
		h.Status = "misconfigured"
	default:
		h.Status = "unreachable"
	}
	return h
}

// need is a right of root over everything, by any of its names, of which the first
// is the one to grant.
type need []string

// needs are the rights without which credentials cannot be made or ended. The same
// are in the guide, whose root is what the tests run with.
func (d dialect) needs() []need {
	if d == mariaDB {
		return []need{{"CREATE USER"}, {"PROCESS"}, {"CONNECTION ADMIN", "SUPER"}}
	}
	return []need{{"CREATE USER"}, {"PROCESS"}, {"CONNECTION_ADMIN", "SUPER"}, {"ROLE_ADMIN", "SUPER"}}
}

func (e *Engine) examine(ctx context.Context, c *conn, h *engine.Health) error {
	const attempt = "check the source"
	root, err := c.root(ctx)
	if err != nil {
		return err
	}
	held, err := c.globalRights(ctx)
	if err != nil {
		return err
	}
	all := slices.Contains(held, allRights)
	for _, n := range e.dialect.needs() {
		if !all && !slices.ContainsFunc(n, func(name string) bool { return slices.Contains(held, name) }) {
			h.MissingGrants = append(h.MissingGrants, "GRANT "+n[0]+" ON *.* TO "+root)
		}
	}
	answer, err := c.guarded(ctx, attempt, []fence{e.sameServer()}, e.dialect.accountQuery("User LIKE 'v\\\\_%'"))
	if err != nil {
		return err
	}
	live := 0
	for _, a := range readAccounts(answer.last()) {
		if e.options.Namer.Ours(a.name) {
			live++
		}
	}
	if live >= warnAt {
		h.Warnings = append(h.Warnings, fmt.Sprintf("%d credentials are alive, and for each creation and drop the source looks through all accounts: shorter lives keep both fast", live))
	}
	if e.dialect == mySQL {
		if _, err := c.guarded(ctx, attempt, nil, "SELECT COUNT(*) FROM mysql.role_edges"); err != nil {
			h.MissingGrants = append(h.MissingGrants, "GRANT SELECT ON mysql.role_edges TO "+root)
		}
	}
	if all || slices.Contains(held, "SUPER") {
		h.Warnings = append(h.Warnings, "root may do everything: whoever gets its password owns the server. The guide to this engine shows a root with less")
	}
	if e.config.target.tls == tlsOff && slices.ContainsFunc(e.config.target.hosts, remote) {
		h.Warnings = append(h.Warnings, "the connection is not encrypted: use tls=true")
	}
	if offset := c.offset(); offset.Abs() > time.Minute {
		h.Warnings = append(h.Warnings, fmt.Sprintf("the source's clock differs by %s", offset.Round(time.Second)))
	}
	return e.examineEvents(ctx, c, h)
}

// globalRights are the rights that root has over everything, in capitals.
func (c *conn) globalRights(ctx context.Context) ([]string, error) {
	answer, err := c.run(ctx, "SHOW GRANTS")
	if err != nil {
		return nil, asked("check the source", err)
	}
	var held []string
	for _, row := range answer.last() {
		rights, _, ok := strings.Cut(row[0], " ON *.* TO ")
		if rights, isGrant := strings.CutPrefix(rights, "GRANT "); ok && isGrant {
			for name := range strings.SplitSeq(rights, ",") {
				held = append(held, strings.TrimSpace(name))
			}
		}
	}
	return held, nil
}

// examineEvents looks whether the events that end credentials would be executed.
func (e *Engine) examineEvents(ctx context.Context, c *conn, h *engine.Health) error {
	if e.config.ExpiryEvents == "" {
		return nil
	}
	answer, err := c.guarded(ctx, "check the source", nil, "SELECT @@GLOBAL.event_scheduler")
	if err != nil {
		return err
	}
	if on := answer.one(); on != "ON" && on != "1" {
		h.Warnings = append(h.Warnings, "expiry_events is set and the source executes no events: run SET GLOBAL event_scheduler = ON there, and put it into its configuration")
	}
	return nil
}
