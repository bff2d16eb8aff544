package postgresql

import (
	"context"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// rehearse runs the creation statements and takes them back, so that a
// statement that cannot work is refused when the role is saved.
func (e *Engine) rehearse(ctx context.Context, roleName string, r *role) ([]string, error) {
	name := e.newName(roleName)
	rec := recipe{Username: name, Role: roleName, LeaseID: "lease_rehearsal"}
	password := statement.Password(nil)
	verifier := password
	if r.PasswordForm == passwordScram {
		verifier = statement.Secret(statement.ScramSHA256(password, 1, nil))
	}
	sql, err := creation(r, rec, verifier, time.Now().Add(time.Minute))
	if err != nil {
		return nil, err
	}
	err = e.insist(ctx, func() error {
		return e.pool.with(ctx, issuing, e.main(), func(c *conn) error {
			defer c.run(ctx, "ROLLBACK; DISCARD ALL") //nolint:errcheck // a connection on which it fails is not used again
			if _, err := c.guarded(ctx, "try the creation statements", []fence{e.sameServer()}, message("BEGIN", lockGrants), verifier); err != nil {
				return err
			}
			for _, s := range sql {
				if err := e.rehearseOne(ctx, c, s, name, verifier, password); err != nil {
					return err
				}
			}
			answer, err := c.run(ctx, "SELECT count(*) FROM pg_roles WHERE rolname = "+statement.QuoteLiteral(name))
			if err == nil && answer.one() != "1" {
				return engine.Invalid("creation_statements make no role named {{name}}")
			}
			return err
		})
	})
	if err != nil {
		return nil, shown(err)
	}
	return e.statementWarnings(r), nil
}

func (e *Engine) rehearseOne(ctx context.Context, c *conn, sql, name string, secrets ...statement.Secret) error {
	_, err := c.run(ctx, sql)
	told := ""
	for _, n := range c.notices {
		if n.Code == codePrivilegeNotGiven {
			told = n.Message
		}
	}
	if err == nil && told == "" {
		return nil
	}
	if err != nil {
		if code(err) == "" || retried(err) || code(err) == codeLockNotAvailable || code(err) == codeQueryCanceled {
			return sentError("try the creation statements", err, secrets...)
		}
		told = sentError("try the creation statements", err, secrets...).Reason
	}
	if statement, ok := e.grantToRoot(sql, name); ok {
		return engine.Invalid("root cannot give what creation_statements grant (%s): run as the owner of the objects: %s", told, statement)
	}
	return engine.Invalid("%s", told)
}

// grantToRoot turns a GRANT to the new account into the one that root lacks.
func (e *Engine) grantToRoot(sql, name string) (string, bool) {
	trimmed := strings.TrimSpace(sql)
	if len(trimmed) < 6 || !strings.EqualFold(trimmed[:6], "GRANT ") {
		return "", false
	}
	at := strings.LastIndex(trimmed, statement.QuoteIdent(name))
	if at < 0 {
		at = strings.LastIndex(trimmed, name)
	}
	if at < 0 {
		return "", false
	}
	option := "WITH GRANT OPTION"
	if !strings.Contains(strings.ToUpper(trimmed), " ON ") {
		option = "WITH ADMIN OPTION"
	}
	return trimmed[:at] + statement.QuoteIdent(e.root.Username) + " " + option, true
}

func (e *Engine) statementWarnings(r *role) []string {
	var warnings []string
	if r.PasswordForm == passwordPlain {
		warnings = append(warnings, "password_form plain: the password is sent in the statement and may appear in the source's log")
	}
	if r.creation.Has("grant") && r.creation.Has("on") {
		warnings = append(warnings, "the statements grant rights to each account directly, which grows the access lists of the objects: PostgreSQL refuses at about 2,400 accounts, and each is slower than the one before. The form privileges has neither limit")
	}
	return warnings
}
