package mysql

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

// account is one entry of the source's accounts: of one name there may be several,
// each for another host.
type account struct {
	name, host string
	locked     bool
	mark       string // what stands where our mark would
}

// spec is the account as statements name it.
func (a account) spec() string { return accountSpec(a.name, a.host) }

func accountSpec(name, host string) string {
	return statement.QuoteMySQLText(name) + "@" + statement.QuoteMySQLText(host)
}

// The mark that makes an account ours beyond its name. MySQL keeps a comment for
// every account. MariaDB keeps none, but takes several ways to log in: the mark is
// a second one, by a password of which the hash is a text that says what it is and
// ends with our keyed tag over the name. Nobody can log in by it: that needs a
// password of which these very bytes are the hash.
const (
	markPrefix     = "scaivault:"
	hashMarkPrefix = "sv user: "
	hashMarkBytes  = 20
)

// mark is the text in its place.
func (e *Engine) mark(name, leaseID string) string {
	if e.dialect == mySQL {
		return e.options.Namer.Mark(markPrefix + name + ":" + leaseID)
	}
	signed := e.options.Namer.Mark(markPrefix + name)
	tag := signed[len(signed)-(hashMarkBytes-len(hashMarkPrefix)):]
	return "*" + strings.ToUpper(hex.EncodeToString([]byte(hashMarkPrefix+tag)))
}

// marked tells whether an account bears our mark.
func (e *Engine) marked(a account) bool {
	if e.dialect == mySQL {
		return strings.HasPrefix(a.mark, markPrefix+a.name+":") && e.options.Namer.OursMark(a.mark)
	}
	return strings.Contains(a.mark, e.mark(a.name, ""))
}

// ours tells whether the entries of one name were made by this installation (law
// L11): by the checksum in the name, and by the mark of one of them. What is
// locked and has no mark was given up between two statements; nobody can use it,
// and only the name counts then.
func (e *Engine) ours(entries []account, unmarked bool) bool {
	if len(entries) == 0 || !e.options.Namer.Ours(entries[0].name) {
		return false
	}
	locked := true
	for _, a := range entries {
		if e.marked(a) {
			return true
		}
		locked = locked && a.locked
	}
	return locked || unmarked
}

// accountQuery selects all entries that meet a condition. Roles of MariaDB are no
// accounts.
func (d dialect) accountQuery(condition string) string {
	if d == mariaDB {
		return `SELECT User, Host, JSON_VALUE(Priv, '$.account_locked') IN ('1', 'true'), COALESCE(JSON_EXTRACT(Priv, '$.auth_or'), '')
			FROM mysql.global_priv WHERE JSON_VALUE(Priv, '$.is_role') IS NULL AND ` + condition
	}
	return `SELECT User, Host, account_locked = 'Y', COALESCE(JSON_UNQUOTE(JSON_EXTRACT(User_attributes, '$.metadata.comment')), '')
			FROM mysql.user WHERE ` + condition
}

func readAccounts(rows [][]string) []account {
	accounts := make([]account, len(rows))
	for i, row := range rows {
		accounts[i] = account{name: row[0], host: row[1], locked: row[2] == "1", mark: row[3]}
	}
	return accounts
}

// named is a condition on accounts.
func named(names ...string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = statement.QuoteMySQLText(name)
	}
	return "User IN (" + strings.Join(quoted, ", ") + ")"
}

// accounts finds all entries of names, on the engine's own server.
func (e *Engine) accounts(ctx context.Context, c *conn, attempt string, names ...string) (map[string][]account, error) {
	answer, err := c.guarded(ctx, attempt, []fence{e.sameServer()}, e.dialect.accountQuery(named(names...)))
	if err != nil {
		return nil, rawError{mapped: asked(attempt, err), raw: err}
	}
	found := map[string][]account{}
	for _, a := range readAccounts(answer.last()) {
		found[a.name] = append(found[a.name], a)
	}
	return found, nil
}

// login is one way to log in of an account of MariaDB.
type login struct {
	Plugin string           `json:"plugin"`
	Text   statement.Secret `json:"authentication_string"`
}

// logins reads the ways to log in that MariaDB keeps of an account. Where there are
// several the document repeats itself: an empty one of the list stands for the one
// that the document itself is.
func logins(priv string) ([]login, error) {
	var document struct {
		login
		Or []login `json:"auth_or"`
	}
	if err := json.Unmarshal([]byte(priv), &document); err != nil {
		return nil, err
	}
	if len(document.Or) == 0 {
		return []login{document.login}, nil
	}
	for i, l := range document.Or {
		if l.Plugin == "" {
			document.Or[i] = document.login
		}
	}
	return document.Or, nil
}

// identified is the clause of CREATE USER and ALTER USER that sets ways to log in,
// of which MySQL takes one.
func identified(ways ...login) string {
	clauses := make([]string, 0, len(ways))
	for _, l := range ways {
		clause := statement.QuoteMySQLText(l.Plugin)
		if l.Text != "" {
			clause += " AS " + statement.QuoteMySQLText(l.Text.Reveal())
		}
		clauses = append(clauses, clause)
	}
	return "IDENTIFIED WITH " + strings.Join(clauses, " OR ")
}
