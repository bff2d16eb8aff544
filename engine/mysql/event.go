package mysql

import (
	"context"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/statement"

	"github.com/scaivault/scaivault/engine"
)

// With expiry_events the source itself ends a credential when ScaiVault is down: an
// event locks its account and ends its sessions. It is gone when it has run.

// event makes the event that ends accounts of one name; none where the operator
// wants no events.
func (m making) event(c *conn, accounts ...account) []string {
	r := m.draft.recipe
	if r.Event == "" {
		return nil
	}
	specs := make([]string, len(accounts))
	for i, a := range accounts {
		specs[i] = a.spec()
	}
	return []string{"CREATE EVENT IF NOT EXISTS " + r.event() + " ON SCHEDULE AT " + schedule(c, m.expires) + ` ON COMPLETION NOT PRESERVE DO BEGIN
		DECLARE victim BIGINT UNSIGNED;
		DECLARE ended BOOLEAN DEFAULT FALSE;
		DECLARE sessions CURSOR FOR SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ` + statement.QuoteMySQLText(r.Username) + `;
		DECLARE CONTINUE HANDLER FOR NOT FOUND SET ended = TRUE;
		DECLARE CONTINUE HANDLER FOR 1094 BEGIN END;
		ALTER USER IF EXISTS ` + strings.Join(specs, ", ") + ` ACCOUNT LOCK;
		OPEN sessions;
		looking: LOOP
			FETCH sessions INTO victim;
			IF ended THEN LEAVE looking; END IF;
			KILL victim;
		END LOOP;
	END`}
}

// event is the event's name.
func (r recipe) event() string {
	return statement.QuoteMySQLName(r.Event) + "." + statement.QuoteMySQLName(r.Username)
}

// schedule is a moment in whole seconds, which is what events know.
func schedule(c *conn, t time.Time) string {
	return statement.QuoteMySQLText(c.sourceTime(t).UTC().Round(time.Second).Format(time.DateTime))
}

// dropEvents drops the events of credentials that are gone.
func (e *Engine) dropEvents(ctx context.Context, recipes []recipe) error {
	var statements []string
	for _, r := range recipes {
		if r.Event != "" {
			statements = append(statements, "DROP EVENT IF EXISTS "+r.event())
		}
	}
	if len(statements) == 0 {
		return nil
	}
	return e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		_, err := c.guarded(ctx, "drop the event of a credential", []fence{e.sameServer()}, message(statements...))
		return err
	})
}
