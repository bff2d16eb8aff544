package mysql

import (
	"context"
	"fmt"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// dropOne drops one account. MySQL keeps one that stored objects are defined as, so
// that nobody else gets to be their definer. Such an account loses all rights, so
// that the objects can do nothing either, and is a residue; the drop is tried on.
// MariaDB drops it, and the objects fail from then on.
func (b batch) dropOne(ctx context.Context, v *victim) error {
	for _, a := range v.entries {
		_, err := b.c.guarded(ctx, revokingAccount, []fence{b.e.sameServer()}, "DROP USER IF EXISTS "+a.spec())
		if code(err) == codeDefiner {
			v.outcome = engine.Outcome{Residue: b.residue(ctx, a)}
			err = b.disarm(ctx, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// disarm takes every right and role from an account.
func (b batch) disarm(ctx context.Context, a account) error {
	answer, err := b.c.guarded(ctx, revokingAccount, []fence{b.e.sameServer()},
		"SELECT FROM_USER, FROM_HOST FROM mysql.role_edges WHERE TO_USER = "+statement.QuoteMySQLText(a.name)+" AND TO_HOST = "+statement.QuoteMySQLText(a.host))
	if err != nil {
		return err
	}
	statements := []string{"REVOKE ALL PRIVILEGES, GRANT OPTION FROM " + a.spec()}
	for _, role := range answer.last() {
		statements = append(statements, "REVOKE "+accountSpec(role[0], role[1])+" FROM "+a.spec())
	}
	_, err = b.c.guarded(ctx, revokingAccount, []fence{b.e.sameServer()}, message(statements...))
	return err
}

// residue says what keeps an account, as far as root may see it, and what to do.
func (b batch) residue(ctx context.Context, a account) string {
	definer := statement.QuoteMySQLText(a.name + "@" + a.host)
	answer, err := b.c.guarded(ctx, revokingAccount, nil, strings.Join([]string{
		"SELECT CONCAT('VIEW ', TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.VIEWS WHERE DEFINER = " + definer,
		"SELECT CONCAT(ROUTINE_TYPE, ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME) FROM information_schema.ROUTINES WHERE DEFINER = " + definer,
		"SELECT CONCAT('TRIGGER ', TRIGGER_SCHEMA, '.', TRIGGER_NAME) FROM information_schema.TRIGGERS WHERE DEFINER = " + definer,
		"SELECT CONCAT('EVENT ', EVENT_SCHEMA, '.', EVENT_NAME) FROM information_schema.EVENTS WHERE DEFINER = " + definer,
	}, " UNION ALL "))
	what := "objects that root may not see"
	if err == nil && len(answer.last()) > 0 {
		var objects []string
		for _, row := range answer.last() {
			objects = append(objects, row[0])
		}
		what = strings.Join(objects, ", ")
	}
	return fmt.Sprintf("the account %s is locked and has no rights, and is kept because these are defined as it: %s. Drop them or give them another definer, and then: DROP USER %s", a.spec(), what, a.spec())
}
