package mysql

import (
	"regexp"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// Rights by what they can be about, in the words of the manuals. What one of the
// two kinds of servers does not know, or a later version added, the server itself
// refuses or takes when the role is saved.
var (
	columnRights  = []string{"SELECT", "INSERT", "UPDATE", "REFERENCES"}
	tableRights   = append([]string{"DELETE", "CREATE", "DROP", "INDEX", "ALTER", "CREATE VIEW", "SHOW VIEW", "TRIGGER", "DELETE HISTORY"}, columnRights...)
	routineRights = []string{"EXECUTE", "ALTER ROUTINE"}
	schemaRights  = append([]string{"CREATE TEMPORARY TABLES", "LOCK TABLES", "EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE", "EVENT", "SHOW CREATE ROUTINE"}, tableRights...)
	globalRights  = append([]string{
		"PROCESS", "RELOAD", "FILE", "SHUTDOWN", "SHOW DATABASES", "REPLICATION CLIENT", "REPLICATION SLAVE", "SUPER",
		"CREATE USER", "CREATE TABLESPACE", "CREATE ROLE", "DROP ROLE",
		"BINLOG MONITOR", "BINLOG ADMIN", "BINLOG REPLAY", "CONNECTION ADMIN", "FEDERATED ADMIN", "READ_ONLY ADMIN",
		"REPLICATION MASTER ADMIN", "REPLICATION SLAVE ADMIN", "SET USER", "SLAVE MONITOR", "REPLICA MONITOR",
	}, schemaRights...)
	dynamicRight = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`) // of MySQL, each of a component or plugin
)

// allRights is what ALL and ALL PRIVILEGES become.
const allRights = "ALL PRIVILEGES"

// grant is one entry of privileges: rights on everything, on one schema, or on one
// table or routine.
type grant struct {
	rights []right // none twice, sorted
	kind   string  // TABLE, PROCEDURE or FUNCTION; empty for a schema and for everything
	schema string  // empty for everything
	object string  // empty for a schema
}

// right is one that is given, for a table perhaps on some columns only.
type right struct {
	name    string
	columns []string
}

func (r right) String() string {
	if len(r.columns) == 0 {
		return r.name
	}
	quoted := make([]string, len(r.columns))
	for i, c := range r.columns {
		quoted[i] = statement.QuoteMySQLName(c)
	}
	return r.name + " (" + strings.Join(quoted, ", ") + ")"
}

// String is the entry in its normal form; two that mean the same have the same.
func (g grant) String() string { return g.text(g.schema) }

// text is what stands between GRANT and TO, with the name of the schema as the
// server is to read it.
func (g grant) text(schema string) string {
	rights := make([]string, len(g.rights))
	for i, r := range g.rights {
		rights[i] = r.String()
	}
	target := "*.*"
	switch {
	case g.object != "":
		target = g.kind + " " + statement.QuoteMySQLName(g.schema) + "." + statement.QuoteMySQLName(g.object)
	case g.schema != "":
		target = statement.QuoteMySQLName(schema) + ".*"
	}
	return strings.Join(rights, ", ") + " ON " + target
}

// sql is what stands between GRANT and TO. Of a whole schema the servers take the
// name for a pattern, in which _ is any character; but for MySQL with
// partial_revokes.
func (g grant) sql(patterns bool) string {
	schema := g.schema
	if patterns {
		schema = strings.NewReplacer(`\`, `\\`, `_`, `\_`, `%`, `\%`).Replace(schema)
	}
	return g.text(schema)
}

// outlives tells whether who has the right can make what no revocation ends:
// accounts.
func (g grant) outlives() bool {
	if g.schema != "" {
		return strings.EqualFold(g.schema, "mysql") && slices.ContainsFunc(g.rights, func(r right) bool { return r.name != "SELECT" })
	}
	return slices.ContainsFunc(g.rights, func(r right) bool {
		return slices.Contains([]string{allRights, "CREATE USER", "INSERT", "UPDATE", "SUPER"}, r.name)
	})
}

// parseGrants reads the entries of privileges. The normal forms come sorted.
func parseGrants(entries []string) ([]grant, error) {
	all := make([]grant, len(entries))
	for i, entry := range entries {
		p := &grantParser{index: i}
		err := p.scan(entry)
		if err == nil {
			all[i], err = p.parse()
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b grant) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(all, func(a, b grant) bool { return a.String() == b.String() }), nil
}

// grantParser reads one entry: RIGHT [(columns)] [, ...] ON target.
type grantParser struct {
	index  int
	tokens []grantToken
	at     int
}

// grantToken is a word, a quoted name, or one punctuation mark.
type grantToken struct {
	text   string // a word as written; a quoted name without its quotes
	quoted bool
}

func (p *grantParser) fail(format string, args ...any) error {
	return engine.Invalid("privileges[%d]: "+format, append([]any{p.index}, args...)...)
}

var grantLexer = regexp.MustCompile("^(?:[ \\t\\r\\n]+|`(?:[^`\\x00]|``)+`|[\\pL\\pN_$]+|[,.()*])")

func (p *grantParser) scan(text string) error {
	for at := 0; at < len(text); {
		found := grantLexer.FindString(text[at:])
		if found == "" {
			return p.fail("the character at byte %d does not belong there, or a quoted name is not closed", at)
		}
		at += len(found)
		switch {
		case strings.TrimSpace(found) == "":
		case found[0] == '`':
			p.tokens = append(p.tokens, grantToken{strings.ReplaceAll(found[1:len(found)-1], "``", "`"), true})
		default:
			p.tokens = append(p.tokens, grantToken{text: found})
		}
	}
	return nil
}

// is takes a word or mark if it is the next.
func (p *grantParser) is(word string) bool {
	if p.at < len(p.tokens) && !p.tokens[p.at].quoted && strings.EqualFold(p.tokens[p.at].text, word) {
		p.at++
		return true
	}
	return false
}

// name takes a name.
func (p *grantParser) name(of string) (string, error) {
	if p.at == len(p.tokens) || !p.tokens[p.at].quoted && strings.ContainsAny(p.tokens[p.at].text, ",.()*") {
		return "", p.fail("the name of a %s is missing", of)
	}
	p.at++
	name := p.tokens[p.at-1].text
	if len([]rune(name)) > maxIdentifier {
		return "", p.fail("the name of a %s is longer than %d characters", of, maxIdentifier)
	}
	return name, nil
}

func (p *grantParser) parse() (g grant, err error) {
	if g.rights, err = p.rights(); err != nil {
		return g, err
	}
	if err := p.target(&g); err != nil {
		return g, err
	}
	if p.at < len(p.tokens) {
		return g, p.fail("%q is too much: write RIGHTS ON schema.*, schema.table or *.*; to pass rights on cannot be given", p.tokens[p.at].text)
	}
	for _, r := range g.rights {
		if err := p.fits(r, g); err != nil {
			return g, err
		}
	}
	return g, nil
}

// rights reads what stands before ON.
func (p *grantParser) rights() ([]right, error) {
	var rights []right
	for {
		var words []string
		for p.at < len(p.tokens) && !p.tokens[p.at].quoted && !strings.ContainsAny(p.tokens[p.at].text, ",.()*") && !strings.EqualFold(p.tokens[p.at].text, "ON") {
			words = append(words, strings.ToUpper(p.tokens[p.at].text))
			p.at++
		}
		r := right{name: strings.Join(words, " ")}
		if r.name == "ALL" {
			r.name = allRights
		}
		if r.name == "" {
			return nil, p.fail("a right is missing: write for example SELECT, INSERT ON schema.*")
		}
		var err error
		if r.columns, err = p.columns(); err != nil {
			return nil, err
		}
		rights = append(rights, r)
		if p.is("ON") {
			break
		}
		if !p.is(",") {
			return nil, p.fail("after %s comes a comma or ON", r.name)
		}
	}
	slices.SortFunc(rights, func(a, b right) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(rights, func(a, b right) bool { return a.String() == b.String() }), nil
}

func (p *grantParser) columns() (columns []string, err error) {
	if !p.is("(") {
		return nil, nil
	}
	for {
		column, err := p.name("column")
		if err != nil {
			return nil, err
		}
		columns = append(columns, column)
		if p.is(")") {
			slices.Sort(columns)
			return slices.Compact(columns), nil
		}
		if !p.is(",") {
			return nil, p.fail("a list of columns is not closed")
		}
	}
}

// target reads what stands behind ON.
func (p *grantParser) target(g *grant) (err error) {
	for _, kind := range []string{"TABLE", "PROCEDURE", "FUNCTION"} {
		// A schema may be named like a kind.
		if p.at+1 < len(p.tokens) && p.tokens[p.at+1].text != "." && p.is(kind) {
			g.kind = kind
			break
		}
	}
	if p.is("*") {
		if g.kind != "" || !p.is(".") || !p.is("*") {
			return p.fail("what has no schema is written *.*")
		}
		return nil
	}
	if g.schema, err = p.name("schema"); err != nil {
		return err
	}
	if !p.is(".") {
		return p.fail("write schema.* or schema.table: the schema is never left out")
	}
	if p.is("*") {
		if g.kind != "" {
			return p.fail("%s needs the name of one", g.kind)
		}
		return nil
	}
	if g.kind == "" {
		g.kind = "TABLE"
	}
	g.object, err = p.name(strings.ToLower(g.kind))
	return err
}

// fits refuses a right that cannot be about the target.
func (p *grantParser) fits(r right, g grant) error {
	if r.name == allRights && len(r.columns) == 0 {
		return nil
	}
	known, of := globalRights, "*.*"
	switch {
	case len(r.columns) > 0 && g.kind != "TABLE":
		return p.fail("%s: columns are of one table", r.name)
	case len(r.columns) > 0:
		known, of = columnRights, "columns"
	case g.kind == "TABLE":
		known, of = tableRights, "a table"
	case g.kind != "":
		known, of = routineRights, "a routine"
	case g.schema != "":
		known, of = schemaRights, "a schema"
	case dynamicRight.MatchString(r.name):
		return nil
	}
	if !slices.Contains(known, r.name) {
		return p.fail("%q is no right on %s", r.name, of)
	}
	return nil
}
