package statement

import (
	"slices"
	"strings"
)

// QuoteIdent quotes a name for PostgreSQL. A NUL, which no name there can hold,
// becomes U+FFFD: such a name names nothing.
func QuoteIdent(s string) string { return `"` + insideName(noNUL(s)) + `"` }

// QuoteLiteral quotes a text for PostgreSQL, right under both settings of
// standard_conforming_strings. A NUL becomes U+FFFD.
func QuoteLiteral(s string) string {
	s = noNUL(s)
	if strings.Contains(s, `\`) {
		return `E'` + insideEscapeText(s) + `'`
	}
	return `'` + insideText(s) + `'`
}

func noNUL(s string) string            { return strings.ReplaceAll(s, "\x00", "\ufffd") }
func insideName(s string) string       { return strings.ReplaceAll(s, `"`, `""`) }
func insideText(s string) string       { return strings.ReplaceAll(s, `'`, `''`) }
func insideEscapeText(s string) string { return insideText(strings.ReplaceAll(s, `\`, `\\`)) }

// ParsePostgres reads a template of PostgreSQL statements that may use the
// allowed variables. A variable within double or single quotes is escaped for
// these; standing alone, {{name}} becomes a quoted name and every other a
// quoted text. Statements are executed with standard_conforming_strings on.
//
// It refuses, as invalid_config: a variable where it cannot be quoted (comment,
// dollar-quoted body, Unicode or bit string, part of a word), and statements
// that would leave the transaction or the user in which the engine runs them.
func ParsePostgres(source string, allowed ...string) (*SQL, error) {
	pieces, err := split(source)
	if err != nil {
		return nil, err
	}
	if err := checkVariables(pieces, allowed); err != nil {
		return nil, err
	}
	t := pgTemplate{}
	var b strings.Builder
	for _, p := range pieces {
		if p.variable != "" {
			t.variables = append(t.variables, p.variable)
			b.WriteByte(variableByte)
		}
		b.WriteString(p.text)
	}
	t.source = b.String()
	tokens, err := lexPostgres(t.source)
	if err != nil {
		return nil, err
	}
	if err := t.place(tokens); err != nil {
		return nil, err
	}
	return t.statements(tokens)
}

// pgTemplate is a template in which every variable is one variableByte.
type pgTemplate struct {
	source    string
	variables []string                    // in the order of the text
	quoting   []func(value string) string // of each
}

// place decides how each variable is quoted where it stands.
func (t *pgTemplate) place(tokens []token) error {
	var before token // the last one that is no comment
	for i, tok := range tokens {
		if i > 0 && tok.kind != comment {
			if isText(before.kind) && isText(tok.kind) {
				return badTemplate("two strings follow each other: %s; write them as one", excerpt(t.source[before.start:]))
			}
		}
		for range strings.Count(t.source[tok.start:tok.end], string(rune(variableByte))) {
			variable := t.variables[len(t.quoting)]
			quote, err := t.quote(tok, variable)
			if err != nil {
				return err
			}
			t.quoting = append(t.quoting, quote)
		}
		if tok.kind == placeholder && t.variables[len(t.quoting)-1] != "name" {
			tok.kind = text // it will be one
			if isText(before.kind) {
				return badTemplate("{{%s}} follows a string; put it into the same quotes", t.variables[len(t.quoting)-1])
			}
		}
		if tok.kind != comment {
			before = tok
		}
	}
	return nil
}

func (t *pgTemplate) quote(tok token, variable string) (func(string) string, error) {
	switch tok.kind {
	case quotedName:
		return insideName, nil
	case text:
		return insideText, nil
	case escapeText:
		return insideEscapeText, nil
	case placeholder:
		if t.touches(tok.start-1) || t.touches(tok.end) {
			return nil, badTemplate("{{%s}} is a part of a word or touches a quote; put the whole into quotes", variable)
		}
		if variable == "name" {
			return QuoteIdent, nil
		}
		return QuoteLiteral, nil
	case comment:
		return nil, badTemplate("{{%s}} stands in a comment", variable)
	case dollarText:
		return nil, badTemplate("{{%s}} stands in a dollar-quoted body, where it cannot be quoted; use it outside, for example by set_config", variable)
	default:
		return nil, badTemplate("{{%s}} stands in a Unicode or bit string; use plain quotes", variable)
	}
}

// touches tells whether the byte at this place would grow together with a
// quoted value beside it.
func (t *pgTemplate) touches(at int) bool {
	if at < 0 || at >= len(t.source) {
		return false
	}
	c := t.source[at]
	return wordStart(c) || digit(c) || strings.IndexByte("$'\"&\x00", c) >= 0
}

func isText(k tokenKind) bool { return k == text || k == escapeText || k == otherText }

// statements cuts the template at its semicolons.
func (t *pgTemplate) statements(tokens []token) (*SQL, error) {
	sql := &SQL{}
	depth, next := 0, 0
	var current []token
	finish := func() error {
		if len(current) == 0 {
			return nil
		}
		words := t.words(current)
		if err := refuse(words); err != nil {
			return err
		}
		stretch := t.source[current[0].start:current[len(current)-1].end]
		parts := t.parts(stretch, next)
		next += strings.Count(stretch, string(rune(variableByte)))
		sql.statements = append(sql.statements, parts)
		sql.words = append(sql.words, words)
		current = current[:0]
		return nil
	}
	for _, tok := range tokens {
		if tok.kind == symbol {
			switch t.source[tok.start] {
			case '(':
				depth++
			case ')':
				depth--
			case ';':
				if depth == 0 {
					if err := finish(); err != nil {
						return nil, err
					}
					continue
				}
			}
			if depth < 0 {
				return nil, badTemplate("a parenthesis is closed that was not opened")
			}
		}
		if tok.kind != comment {
			current = append(current, tok)
		}
	}
	if depth > 0 {
		return nil, badTemplate("a parenthesis is not closed")
	}
	if err := finish(); err != nil {
		return nil, err
	}
	if len(sql.statements) == 0 {
		return nil, badTemplate("there is no statement in it")
	}
	return sql, nil
}

// parts cuts a statement at its variables, of which the first is number next.
func (t *pgTemplate) parts(stretch string, next int) []part {
	var parts []part
	for i, plain := range strings.Split(stretch, string(rune(variableByte))) {
		if i > 0 {
			parts = append(parts, part{variable: t.variables[next], quote: t.quoting[next]})
			next++
		}
		if plain != "" {
			parts = append(parts, part{text: plain})
		}
	}
	return parts
}

// words are the keywords and names of a statement in lower case, with "" for
// each token of another kind.
func (t *pgTemplate) words(tokens []token) []string {
	words := make([]string, len(tokens))
	for i, tok := range tokens {
		switch tok.kind {
		case word, quotedName: // a name keeps its quotes: it is no keyword
			words[i] = strings.ToLower(t.source[tok.start:tok.end])
		case unicodeName:
			words[i] = `u&`
		}
	}
	return words
}

// refuse finds the statements that would end or leave the transaction, change
// the user, or make the lexer read what follows in another way.
func refuse(words []string) error {
	first, second := words[0], ""
	if len(words) > 1 {
		second = words[1]
	}
	switch first {
	case "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release":
		return badTemplate("%s: transactions are the engine's; leave it out", strings.ToUpper(first))
	case "prepare":
		if second == "transaction" {
			return badTemplate("PREPARE TRANSACTION: transactions are the engine's; leave it out")
		}
	case "discard":
		return badTemplate("DISCARD: the session is the engine's; leave it out")
	case "set", "reset":
		return refuseSetting(first, words[1:])
	case "copy":
		for _, w := range words {
			if w == "stdin" || w == "stdout" || w == "program" {
				return badTemplate("COPY with %s cannot be used", strings.ToUpper(w))
			}
		}
	}
	return nil
}

// refuseSetting looks at what SET or RESET is about. A setting can be named in
// quotes, and in any case.
func refuseSetting(verb string, words []string) error {
	if len(words) > 1 && (words[0] == "local" || words[0] == "session" && words[1] != "authorization") {
		words = words[1:]
	}
	if len(words) == 0 {
		return nil
	}
	setting := strings.Trim(words[0], `"`)
	if slices.Contains([]string{
		"role", "session", "session_authorization", "transaction", "characteristics", "all", "names", "u&",
		"standard_conforming_strings", "backslash_quote", "client_encoding",
	}, setting) || strings.HasPrefix(setting, "transaction_") {
		return badTemplate("%s %s: user, transaction and encoding are the engine's; leave it out", strings.ToUpper(verb), strings.ToUpper(setting))
	}
	return nil
}
