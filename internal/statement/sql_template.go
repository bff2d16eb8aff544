package statement

import "strings"

// dialect is what the SQL of a source has of its own.
type dialect struct {
	lex        func(source string) ([]token, error)
	quoteIn    map[tokenKind]func(value string) string // within the quotes of a token
	unquotable map[tokenKind]string                    // where a variable cannot stand, in words
	quoteName  func(value string) string               // {{name}} that stands alone
	quoteText  func(value string) string               // any other that does
	refuse     func(words []string) error              // statements that a template must not hold
}

// parseSQL reads a template of statements that may use the allowed variables.
func parseSQL(d dialect, source string, allowed []string) (*SQL, error) {
	pieces, err := split(source)
	if err != nil {
		return nil, err
	}
	if err := checkVariables(pieces, allowed); err != nil {
		return nil, err
	}
	t := sqlTemplate{dialect: d}
	var b strings.Builder
	for _, p := range pieces {
		if p.variable != "" {
			t.variables = append(t.variables, p.variable)
			b.WriteByte(variableByte)
		}
		b.WriteString(p.text)
	}
	t.source = b.String()
	tokens, err := d.lex(t.source)
	if err != nil {
		return nil, err
	}
	if err := t.place(tokens); err != nil {
		return nil, err
	}
	return t.statements(tokens)
}

// sqlTemplate is a template in which every variable is one variableByte.
type sqlTemplate struct {
	dialect
	source    string
	variables []string                    // in the order of the text
	quoting   []func(value string) string // of each
}

// place decides how each variable is quoted where it stands.
func (t *sqlTemplate) place(tokens []token) error {
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

func (t *sqlTemplate) quote(tok token, variable string) (func(string) string, error) {
	if inside := t.quoteIn[tok.kind]; inside != nil {
		return inside, nil
	}
	switch tok.kind {
	case placeholder:
		if t.touches(tok.start-1) || t.touches(tok.end) {
			return nil, badTemplate("{{%s}} is a part of a word or touches a quote; put the whole into quotes", variable)
		}
		if variable == "name" {
			return t.quoteName, nil
		}
		return t.quoteText, nil
	case comment:
		return nil, badTemplate("{{%s}} stands in a comment", variable)
	}
	if where := t.unquotable[tok.kind]; where != "" {
		return nil, badTemplate("{{%s}} stands %s", variable, where)
	}
	return nil, badTemplate("{{%s}} stands in a Unicode or bit string; use plain quotes", variable)
}

// touches tells whether the byte at this place would grow together with a
// quoted value beside it.
func (t *sqlTemplate) touches(at int) bool {
	if at < 0 || at >= len(t.source) {
		return false
	}
	c := t.source[at]
	return wordStart(c) || digit(c) || strings.IndexByte("$'\"`&\x00", c) >= 0
}

func isText(k tokenKind) bool {
	return k == text || k == escapeText || k == doubleText || k == otherText
}

// statements cuts the template at its semicolons.
func (t *sqlTemplate) statements(tokens []token) (*SQL, error) {
	sql := &SQL{}
	depth, next := 0, 0
	var current []token
	finish := func() error {
		if len(current) == 0 {
			return nil
		}
		words := t.words(current)
		if err := t.refuse(words); err != nil {
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
func (t *sqlTemplate) parts(stretch string, next int) []part {
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
func (t *sqlTemplate) words(tokens []token) []string {
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
