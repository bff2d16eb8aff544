package statement

import "strings"

// tokenKind tells what a stretch of SQL is to PostgreSQL's lexer.
type tokenKind int

const (
	word        tokenKind = iota // a keyword or a name without quotes
	number                       // digits, or a parameter such as $1
	quotedName                   // "…"
	unicodeName                  // U&"…"
	text                         // '…' under standard_conforming_strings
	escapeText                   // E'…'; of MySQL every '…'
	doubleText                   // "…" of MySQL
	otherText                    // U&'…', B'…', X'…'
	dollarText                   // $tag$…$tag$
	comment                      // -- … and /* … */
	placeholder                  // a variable that stands by itself
	symbol                       // any other single byte
)

// token is source[start:end].
type token struct {
	kind       tokenKind
	start, end int
}

// variableByte stands for a variable in the text that is lexed: NUL is in no
// SQL.
const variableByte = 0

// lexPostgres cuts source as src/backend/parser/scan.l of PostgreSQL 14 to 18
// does, as far as it matters for where strings, names, comments and statements
// end. Where the versions differ ("1E'x'" is a number and an escape string up
// to 14, an error later) it follows the one that accepts more.
func lexPostgres(source string) ([]token, error) {
	var tokens []token
	for at := 0; at < len(source); {
		if spaceByte(source[at]) {
			at++
			continue
		}
		kind, end, err := nextToken(source, at)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token{kind, at, end})
		at = end
	}
	return tokens, nil
}

func nextToken(s string, at int) (tokenKind, int, error) {
	rest := s[at:]
	c := rest[0]
	switch {
	case c == variableByte:
		return placeholder, at + 1, nil
	case strings.HasPrefix(rest, "--"):
		if n := strings.IndexAny(rest, "\r\n"); n >= 0 {
			return comment, at + n, nil
		}
		return comment, len(s), nil
	case strings.HasPrefix(rest, "/*"):
		end, err := blockComment(s, at)
		return comment, end, err
	case c == '\'':
		return closed(text, s, at, at, '\'', false)
	case c == '"':
		return closed(quotedName, s, at, at, '"', false)
	case len(rest) > 1 && (c == 'e' || c == 'E') && rest[1] == '\'':
		return closed(escapeText, s, at, at+1, '\'', true)
	case len(rest) > 1 && strings.IndexByte("bBxX", c) >= 0 && rest[1] == '\'':
		return closed(otherText, s, at, at+1, '\'', false)
	case len(rest) > 1 && (c == 'n' || c == 'N') && rest[1] == '\'':
		return closed(text, s, at, at+1, '\'', false)
	case len(rest) > 2 && (c == 'u' || c == 'U') && rest[1] == '&' && rest[2] == '\'':
		return closed(otherText, s, at, at+2, '\'', false)
	case len(rest) > 2 && (c == 'u' || c == 'U') && rest[1] == '&' && rest[2] == '"':
		return closed(unicodeName, s, at, at+2, '"', false)
	case wordStart(c):
		end := at + 1
		for end < len(s) && (wordStart(s[end]) || digit(s[end]) || s[end] == '$') {
			end++
		}
		return word, end, nil
	case digit(c), c == '$' && len(rest) > 1 && digit(rest[1]):
		end := at + 1
		for end < len(s) && digit(s[end]) {
			end++
		}
		return number, end, nil
	case c == '$':
		if end, err := dollarQuote(s, at); end > 0 || err != nil {
			return dollarText, end, err
		}
	case c == '\\':
		return 0, 0, badTemplate(`\ stands outside of a string; commands of psql cannot be used`)
	}
	return symbol, at + 1, nil
}

// closed finds the end of what begins with the quote at open; a doubled quote
// is a part of it and, with escapes, anything after a backslash.
func closed(kind tokenKind, s string, start, open int, quote byte, escapes bool) (tokenKind, int, error) {
	for at := open + 1; at < len(s); at++ {
		switch {
		case escapes && s[at] == '\\':
			at++
		case s[at] != quote:
		case at+1 < len(s) && s[at+1] == quote:
			at++
		default:
			return kind, at + 1, nil
		}
	}
	return 0, 0, badTemplate("a quote %c is not closed: %s", quote, excerpt(s[start:]))
}

// blockComment finds the end of a comment; they nest.
func blockComment(s string, start int) (int, error) {
	depth := 0
	for at := start; at+1 < len(s); at++ {
		switch s[at : at+2] {
		case "/*":
			depth++
			at++
		case "*/":
			depth--
			at++
			if depth == 0 {
				return at + 1, nil
			}
		}
	}
	return 0, badTemplate("a comment /* is not closed: %s", excerpt(s[start:]))
}

// dollarQuote finds the end of a dollar-quoted string; 0 if the dollar at start
// begins none.
func dollarQuote(s string, start int) (int, error) {
	end := start + 1
	for end < len(s) && (wordStart(s[end]) || end > start+1 && digit(s[end])) {
		end++
	}
	if end == len(s) || s[end] != '$' {
		return 0, nil
	}
	tag, body := s[start:end+1], s[end+1:]
	n := strings.Index(body, tag)
	if n < 0 {
		return 0, badTemplate("%s is not closed", excerpt(tag))
	}
	return end + 1 + n + len(tag), nil
}

func spaceByte(c byte) bool { return strings.IndexByte(" \t\n\r\f\v", c) >= 0 }
func digit(c byte) bool     { return '0' <= c && c <= '9' }
func wordStart(c byte) bool { return letter(rune(c)) && c < 0x80 || c == '_' || c >= 0x80 }

// excerpt shows where something begins.
func excerpt(s string) string {
	const length = 24
	if len(s) > length {
		s = strings.ToValidUTF8(s[:length], "") + "…"
	}
	return strings.ReplaceAll(s, string(rune(variableByte)), "{{…}}")
}
