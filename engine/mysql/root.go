package mysql

import (
	"context"
	"maps"
	"slices"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const rotatingRoot = "rotate the root credentials"

// PlanRoot implements engine.RootRotator. The account keeps its name.
func (e *Engine) PlanRoot(context.Context) (map[string]statement.Secret, error) {
	candidate := maps.Clone(e.options.Root)
	candidate["password"] = statement.Password(nil)
	return candidate, nil
}

// SetRoot implements engine.RootRotator. An account may have two passwords, so the
// candidate is added and proved by a new connection before the former one goes:
// whatever is cut off, at least one of the two works, and it can be repeated. After
// the deadline of ctx the source itself refuses the change.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	next, err := engine.ReadLogin("root candidate", candidate)
	if err != nil {
		return err
	}
	e.mu.Lock()
	current := e.root
	e.mu.Unlock()
	if next.Username != current.Username {
		return misconfigured(rotatingRoot+": the account keeps its name; only its password changes", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	if e.prove(ctx, next) == nil { // it was added before, perhaps by another engine
		e.setRoot(next)
	}
	return plainOrNil(e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		// Of two that took turns, each would drop what the other set.
		return e.exclusively(ctx, c, rotatingRoot, lockOf("root "+next.Username), 0, func() error { return e.changeRoot(ctx, c, next) })
	}))
}

func (e *Engine) setRoot(next engine.Login) {
	e.mu.Lock()
	e.root = next
	e.mu.Unlock()
}

func (e *Engine) changeRoot(ctx context.Context, c *conn, next engine.Login) error {
	spec, ways, err := e.rootLogins(ctx, c)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ways, func(l login) bool { return l.Plugin == cachingPlugin || l.Plugin == nativePlugin })
	if i < 0 {
		return misconfigured(rotatingRoot+": root logs in by "+ways[0].Plugin+"; "+cachingPlugin+" and "+nativePlugin+" are those of which the password can be changed", nil)
	}
	changed := login{Plugin: ways[i].Plugin, Text: statement.Secret(statement.CachingSHA2(next.Password, nil))}
	if changed.Plugin == nativePlugin {
		changed.Text = statement.Secret(statement.NativePassword(next.Password))
	}
	change := func(fences []fence, sql string) error {
		_, err := c.guarded(failpoint.OnSending(ctx, failpoint.RootSent), rotatingRoot, fences, "ALTER USER "+spec+" "+sql, changed.Text, next.Password)
		return err
	}
	fences := e.inTime(ctx, c)
	if e.prove(ctx, next) != nil {
		add := identified(changed) + " RETAIN CURRENT PASSWORD"
		if e.dialect == mariaDB {
			add = identified(append([]login{changed}, ways...)...)
		}
		if err := change(fences, add); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RootSet)
		if err := e.prove(ctx, next); err != nil {
			return uncertain(rotatingRoot+": the source took the new password and refuses it", err)
		}
	}
	e.setRoot(next)
	failpoint.Hit(failpoint.RootProved)
	drop := "DISCARD OLD PASSWORD"
	if e.dialect == mariaDB {
		others := slices.DeleteFunc(ways, func(l login) bool { return l.Plugin == nativePlugin })
		drop = identified(append([]login{changed}, others...)...)
	}
	return change(fences, drop)
}

// rootLogins are root's account and its ways to log in.
func (e *Engine) rootLogins(ctx context.Context, c *conn) (spec string, ways []login, err error) {
	if spec, err = c.root(ctx); err != nil {
		return "", nil, err
	}
	answer, err := c.guarded(ctx, rotatingRoot, nil, "SELECT CURRENT_USER()")
	if err != nil {
		return "", nil, err
	}
	name, host := splitAccount(answer.one())
	if e.dialect == mariaDB {
		ways, err = e.logins(ctx, c, account{name: name, host: host})
		return spec, ways, err
	}
	answer, err = c.guarded(ctx, rotatingRoot, nil, "SELECT plugin FROM mysql.user WHERE User = "+statement.QuoteMySQLText(name)+" AND Host = "+statement.QuoteMySQLText(host))
	return spec, []login{{Plugin: answer.one()}}, err
}

// prove logs in on a new connection.
func (e *Engine) prove(ctx context.Context, as engine.Login) error {
	c, err := e.connector.connect(ctx, as)
	if err == nil {
		c.close()
	}
	return err
}
