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
	return parseSQL(postgres, source, allowed)
}

var postgres = dialect{
	lex: lexPostgres,
	quoteIn: map[tokenKind]func(string) string{
		quotedName: insideName,
		text:       insideText,
		escapeText: insideEscapeText,
	},
	unquotable: map[tokenKind]string{
		dollarText: "in a dollar-quoted body, where it cannot be quoted; use it outside, for example by set_config",
	},
	quoteName: QuoteIdent,
	quoteText: QuoteLiteral,
	refuse:    refuse,
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
