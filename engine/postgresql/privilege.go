package postgresql

import (
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// kind is a class of objects on which rights can be granted in the privileges
// form.
type kind struct {
	one    string   // as in GRANT ... ON <one> name
	all    string   // as in ON ALL <all> IN SCHEMA; empty where there is no such form
	rights []string // every right there is on it, in the order of the manual
	check  string   // has_<check>_privilege
}

// kinds are all of them; TABLE is what a bare name means.
func kinds() []kind {
	routine := []string{"EXECUTE"}
	return []kind{
		{"TABLE", "TABLES", []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"}, "table"},
		{"SEQUENCE", "SEQUENCES", []string{"USAGE", "SELECT", "UPDATE"}, "sequence"},
		{"FUNCTION", "FUNCTIONS", routine, "function"},
		{"PROCEDURE", "PROCEDURES", routine, "function"},
		{"ROUTINE", "ROUTINES", routine, "function"},
		{"SCHEMA", "", []string{"USAGE", "CREATE"}, "schema"},
		{"DATABASE", "", []string{"CONNECT", "CREATE", "TEMPORARY"}, "database"},
	}
}

// grant is one entry of privileges: rights on one object, or on all objects of
// a kind in one schema.
type grant struct {
	rights []string // upper case, none twice, sorted
	kind   kind
	all    bool
	schema string // empty where the object's name has none
	object string // empty with all
	args   string // of a routine, with the parentheses
}

// String is the entry in its normal form; two entries that mean the same have
// the same one.
func (g grant) String() string {
	if g.all {
		return strings.Join(g.rights, ", ") + " ON ALL " + g.kind.all + " IN SCHEMA " + statement.QuoteIdent(g.schema)
	}
	return strings.Join(g.rights, ", ") + " ON " + g.kind.one + " " + g.target()
}

// target is the object, quoted.
func (g grant) target() string {
	name := statement.QuoteIdent(g.object) + g.args
	if g.schema != "" {
		name = statement.QuoteIdent(g.schema) + "." + name
	}
	return name
}

// parseGrants reads the entries of privileges and splits lists of objects, so
// that each grant is about one thing. The normal forms come sorted.
func parseGrants(entries []string) ([]grant, error) {
	var all []grant
	for i, entry := range entries {
		p := &grantParser{text: entry, index: i}
		if err := p.scan(); err != nil {
			return nil, err
		}
		grants, err := p.parse()
		if err != nil {
			return nil, err
		}
		all = append(all, grants...)
	}
	slices.SortFunc(all, func(a, b grant) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(all, func(a, b grant) bool { return a.String() == b.String() }), nil
}

// grantParser reads one entry: RIGHT [, ...] ON target.
type grantParser struct {
	text   string
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

func (p *grantParser) scan() error {
	for i := 0; i < len(p.text); {
		c := p.text[i]
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
		case c == '"':
			name, end, ok := quotedName(p.text, i)
			if !ok {
				return p.fail("a quoted name is empty or not closed")
			}
			p.tokens = append(p.tokens, grantToken{name, true})
			i = end
		case strings.IndexByte(",.()[]", c) >= 0:
			p.tokens = append(p.tokens, grantToken{text: string(c)})
			i++
		case wordByte(c) && (c < '0' || c > '9'):
			end := i
			for end < len(p.text) && (wordByte(p.text[end]) || p.text[end] == '$') {
				end++
			}
			p.tokens = append(p.tokens, grantToken{text: p.text[i:end]})
			i = end
		default:
			return p.fail("the character at byte %d does not belong there", i)
		}
	}
	return nil
}

func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}

// quotedName reads a name in double quotes that begins at start.
func quotedName(s string, start int) (name string, end int, ok bool) {
	var b strings.Builder
	for i := start + 1; i < len(s); i++ {
		switch {
		case s[i] == 0:
			return "", 0, false
		case s[i] != '"':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		default:
			return b.String(), i + 1, b.Len() > 0
		}
	}
	return "", 0, false
}

// keyword takes a word if it is the next.
func (p *grantParser) keyword(words ...string) bool {
	for i, w := range words {
		if p.at+i >= len(p.tokens) || p.tokens[p.at+i].quoted || !strings.EqualFold(p.tokens[p.at+i].text, w) {
			return false
		}
	}
	p.at += len(words)
	return true
}

func (p *grantParser) parse() ([]grant, error) {
	rights, err := p.rights()
	if err != nil {
		return nil, err
	}
	if p.keyword("ALL") {
		return p.onAll(rights)
	}
	k := kinds()[0]
	for _, candidate := range kinds() {
		if p.keyword(candidate.one) {
			k = candidate
		}
	}
	if rights, err = p.narrow(rights, k); err != nil {
		return nil, err
	}
	var grants []grant
	for {
		g := grant{rights: rights, kind: k}
		if err := p.object(&g); err != nil {
			return nil, err
		}
		grants = append(grants, g)
		if !p.keyword(",") {
			return grants, p.end()
		}
	}
}

// onAll reads what follows ON ALL.
func (p *grantParser) onAll(rights []string) ([]grant, error) {
	i := slices.IndexFunc(kinds(), func(k kind) bool { return k.all != "" && p.keyword(k.all) })
	if i < 0 || !p.keyword("IN", "SCHEMA") {
		return nil, p.fail("after ON ALL comes TABLES, SEQUENCES, FUNCTIONS, PROCEDURES or ROUTINES, and IN SCHEMA")
	}
	k := kinds()[i]
	rights, err := p.narrow(rights, k)
	if err != nil {
		return nil, err
	}
	var grants []grant
	for {
		schema, err := p.name()
		if err != nil {
			return nil, err
		}
		grants = append(grants, grant{rights: rights, kind: k, all: true, schema: schema})
		if !p.keyword(",") {
			return grants, p.end()
		}
	}
}

// rights reads the words before ON; ALL stays ALL until the kind is known.
func (p *grantParser) rights() ([]string, error) {
	var rights []string
	for {
		if p.at >= len(p.tokens) || p.tokens[p.at].quoted {
			return nil, p.fail(`it must read like "SELECT, INSERT ON ALL TABLES IN SCHEMA public"`)
		}
		right := strings.ToUpper(p.tokens[p.at].text)
		p.at++
		switch right {
		case "TEMP":
			right = "TEMPORARY"
		case "ALL":
			p.keyword("PRIVILEGES")
		}
		rights = append(rights, right)
		if p.keyword("ON") {
			slices.Sort(rights)
			return slices.Compact(rights), nil
		}
		if p.keyword("(") {
			return nil, p.fail("rights on single columns are not taken here: make a view, or use creation_statements")
		}
		if !p.keyword(",") {
			return nil, p.fail("after %s a comma or ON is wanted", right)
		}
	}
}

// narrow checks the rights against the kind.
func (p *grantParser) narrow(rights []string, k kind) ([]string, error) {
	if slices.Equal(rights, []string{"ALL"}) {
		all := slices.Clone(k.rights)
		slices.Sort(all)
		return all, nil
	}
	for _, right := range rights {
		known := slices.Contains(k.rights, right) || right == "MAINTAIN" && k.one == "TABLE" // 17 and later
		if !known {
			return nil, p.fail("%s is no right on a %s; these are: %s", right, strings.ToLower(k.one), strings.Join(k.rights, ", "))
		}
	}
	return rights, nil
}

// object reads a name, with a schema where the kind has one, and the arguments
// of a routine.
func (p *grantParser) object(g *grant) error {
	var err error
	if g.object, err = p.name(); err != nil {
		return err
	}
	free := g.kind.one == "SCHEMA" || g.kind.one == "DATABASE"
	if p.keyword(".") {
		if free {
			return p.fail("a %s has a name of one part", strings.ToLower(g.kind.one))
		}
		g.schema = g.object
		if g.object, err = p.name(); err != nil {
			return err
		}
	} else if !free {
		return p.fail("name the schema of %s too: the search path decides nothing here", statement.QuoteIdent(g.object))
	}
	if g.kind.check == "function" {
		g.args, err = p.arguments()
	}
	return err
}

// arguments reads the types of a routine's arguments, which the source itself
// will understand or refuse.
func (p *grantParser) arguments() (string, error) {
	if !p.keyword("(") {
		return "", p.fail("a routine is named with the types of its arguments: f(integer, text), or f()")
	}
	b := strings.Builder{}
	for depth := 1; depth > 0; p.at++ {
		if p.at >= len(p.tokens) {
			return "", p.fail("a parenthesis is not closed")
		}
		t := p.tokens[p.at]
		switch {
		case t.quoted:
			b.WriteString(statement.QuoteIdent(t.text))
			continue
		case t.text == "(":
			depth++
		case t.text == ")":
			if depth--; depth == 0 {
				continue
			}
		}
		if b.Len() > 0 && wordByte(t.text[0]) {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	return "(" + strings.TrimSpace(b.String()) + ")", nil
}

// name reads a name; unquoted ones are folded to lower case as PostgreSQL does.
func (p *grantParser) name() (string, error) {
	if p.at >= len(p.tokens) || !p.tokens[p.at].quoted && !wordByte(p.tokens[p.at].text[0]) {
		return "", p.fail("a name is missing")
	}
	t := p.tokens[p.at]
	p.at++
	name := t.text
	if !t.quoted {
		name = strings.ToLower(name)
	}
	if len(name) > maxNameBytes {
		return "", p.fail("a name is longer than 63 bytes")
	}
	return name, nil
}

func (p *grantParser) end() error {
	if p.at == len(p.tokens) {
		return nil
	}
	if p.keyword("WITH") {
		return p.fail("WITH GRANT OPTION is not given to credentials")
	}
	return p.fail("%q does not belong there", p.tokens[p.at].text)
}
