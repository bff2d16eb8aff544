package mysql

import (
	"context"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// List implements engine.Lister: the accounts whose name bears this installation's
// checksum, and that are marked.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	marked := "JSON_EXTRACT(Priv, '$.auth_or') IS NOT NULL"
	if e.dialect == mySQL {
		marked = "JSON_UNQUOTE(JSON_EXTRACT(User_attributes, '$.metadata.comment')) LIKE " + statement.QuoteMySQLText(markPrefix+"%")
	}
	var accounts []engine.Account
	err := e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		accounts = accounts[:0]
		answer, err := c.guarded(ctx, "list accounts", []fence{e.sameServer()}, e.dialect.accountQuery(marked+" ORDER BY User, Host"))
		if err != nil {
			return err
		}
		for _, a := range readAccounts(answer.last()) {
			if n := len(accounts); n > 0 && accounts[n-1].Username == a.name || !e.options.Namer.Ours(a.name) || !e.marked(a) {
				continue
			}
			r := recipe{Source: e.source, Username: a.name, Host: a.host, Event: e.config.ExpiryEvents}
			accounts = append(accounts, engine.Account{Username: a.name, Recipe: r.encode()})
		}
		return nil
	})
	if err != nil {
		return nil, asked("list accounts", err)
	}
	return accounts, nil
}
