package statement

import (
	"slices"
	"strings"
)

// QuoteMySQLName quotes a name for MySQL and MariaDB, in every sql_mode. A NUL,
// which no name there can hold, becomes U+FFFD: such a name names nothing.
func QuoteMySQLName(s string) string { return "`" + insideMySQLName(noNUL(s)) + "`" }

// QuoteMySQLText quotes a text for MySQL and MariaDB: the user and the host of an
// account, too. It holds without NO_BACKSLASH_ESCAPES in sql_mode, which the
// session must pin. A NUL becomes U+FFFD.
func QuoteMySQLText(s string) string { return "'" + insideEscapeText(noNUL(s)) + "'" }

func insideMySQLName(s string) string { return strings.ReplaceAll(s, "`", "``") }

func insideDoubleText(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `""`)
}

// ParseMySQL reads a template of statements for MySQL and MariaDB that may use the
// allowed variables. A variable within quotes is escaped for these; standing
// alone, {{name}} becomes a quoted name, which is right for an account, too, and
// every other a quoted text. Statements are executed without ANSI_QUOTES and
// NO_BACKSLASH_ESCAPES in sql_mode.
//
// It refuses, as invalid_config: a variable where it cannot be quoted, comments
// that the server executes, and statements that change the session in which the
// engine runs them, or another one.
func ParseMySQL(source string, allowed ...string) (*SQL, error) {
	return parseSQL(mysql, source, allowed)
}

var mysql = dialect{
	lex: lexMySQL,
	quoteIn: map[tokenKind]func(string) string{
		quotedName: insideMySQLName,
		escapeText: insideEscapeText,
		doubleText: insideDoubleText,
	},
	quoteName: QuoteMySQLName,
	quoteText: QuoteMySQLText,
	refuse:    refuseMySQL,
}

// refuseMySQL finds the statements that are about the session, which is the
// engine's, or that a source would not run as one of several in a message.
func refuseMySQL(words []string) error {
	first, second := words[0], ""
	if len(words) > 1 {
		second = words[1]
	}
	switch first {
	case "set":
		if second == "password" || second == "default" {
			return nil
		}
		return badTemplate("SET %s: the session is the engine's; leave it out", strings.ToUpper(second))
	case "lock", "unlock":
		if second == "tables" || second == "table" || second == "instance" {
			return badTemplate("%s %s: the session is the engine's; leave it out", strings.ToUpper(first), strings.ToUpper(second))
		}
	}
	if slices.Contains([]string{
		"begin", "start", "commit", "rollback", "savepoint", "release", "xa", "use", "prepare", "execute", "deallocate",
		"handler", "kill", "load", "reset", "shutdown", "restart", "delimiter",
	}, first) {
		return badTemplate("%s: transactions and the session are the engine's; leave it out", strings.ToUpper(first))
	}
	return nil
}

// lexMySQL cuts source as sql/sql_lex.cc of MySQL 8.0 and MariaDB 10.6 do, as far
// as it matters for where strings, names, comments and statements end.
func lexMySQL(source string) ([]token, error) {
	var tokens []token
	for at := 0; at < len(source); {
		if spaceByte(source[at]) {
			at++
			continue
		}
		kind, end, err := nextMySQLToken(source, at)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token{kind, at, end})
		at = end
	}
	return tokens, nil
}

func nextMySQLToken(s string, at int) (tokenKind, int, error) {
	rest := s[at:]
	c := rest[0]
	switch {
	case c == variableByte:
		return placeholder, at + 1, nil
	case c == '#', strings.HasPrefix(rest, "--") && (len(rest) == 2 || rest[2] <= ' ' && rest[2] != variableByte):
		if n := strings.IndexByte(rest, '\n'); n >= 0 {
			return comment, at + n, nil
		}
		return comment, len(s), nil
	case strings.HasPrefix(rest, "/*!"), strings.HasPrefix(rest, "/*M!"):
		return 0, 0, badTemplate("%s is executed by some versions and left out by others; write it plainly", excerpt(rest))
	case strings.HasPrefix(rest, "/*"):
		n := strings.Index(rest[2:], "*/")
		if n < 0 {
			return 0, 0, badTemplate("a comment /* is not closed: %s", excerpt(rest))
		}
		return comment, at + 2 + n + 2, nil
	case c == '\'':
		return closed(escapeText, s, at, at, '\'', true)
	case c == '"':
		return closed(doubleText, s, at, at, '"', true)
	case c == '`':
		return closed(quotedName, s, at, at, '`', false)
	case len(rest) > 1 && strings.IndexByte("bBxX", c) >= 0 && rest[1] == '\'':
		return closed(otherText, s, at, at+1, '\'', false)
	case len(rest) > 1 && (c == 'n' || c == 'N') && rest[1] == '\'':
		return closed(escapeText, s, at, at+1, '\'', true)
	case mysqlWordByte(c):
		end := at + 1
		for end < len(s) && mysqlWordByte(s[end]) {
			end++
		}
		if strings.Trim(s[at:end], "0123456789") == "" {
			return number, end, nil
		}
		return word, end, nil
	case c == '\\':
		return 0, 0, badTemplate(`\ stands outside of a string; commands of the client cannot be used`)
	}
	return symbol, at + 1, nil
}

// mysqlWordByte: a name without quotes may begin with a digit.
func mysqlWordByte(c byte) bool { return wordStart(c) || digit(c) || c == '$' }
