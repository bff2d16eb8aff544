// Package script runs Starlark scripts that make credentials, each call in a process of its own.
//
// A script is not trusted: it may loop, take all the memory there is, or print what it should not.
// So the interpreter runs in a child, this very program started again (see [Child]), that has no
// environment, no files, no network and no way to start another program, and that dies at its limits
// of time, steps and memory. All that reaches outside is done by the parent, which the child asks
// over a pipe: one HTTP request to a host of the list, one digest, one random password.
//
// Secrets never enter the child. The parent keeps the fields of the root secret and the passwords
// that it draws in a numbered list, and the child knows the numbers: a value of the kind "secret"
// shows itself as ****, and what is made of it (joined, encoded, digested) is a secret again.
package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// The functions that a script may have. Each takes one argument, ctx.
const (
	Issue  = "issue"  // required
	Revoke = "revoke" // required
	Renew  = "renew"
	Lookup = "lookup"
	List   = "list"
	Check  = "check"
)

func known() []string { return []string{Issue, Revoke, Renew, Lookup, List, Check} }

const (
	// MaxScript is the most bytes that a script may have.
	MaxScript = 64 << 10
	// maxNesting bounds the depth of brackets, blocks and operators: the parser is recursive, and
	// runs in the server.
	maxNesting = 200
	// fileName stands for the script in positions.
	fileName = "script"
)

// dialect is Starlark with while and without recursion: what runs too long is ended in any case.
func dialect() *syntax.FileOptions { return &syntax.FileOptions{Set: true, While: true} }

// Script is a text that was checked: it parses, all names in it are known, and it has the functions
// that it must have.
type Script struct {
	text      string
	functions []string
}

// Functions are those that the script has, in alphabetical order.
func (s *Script) Functions() []string { return s.functions }

// Parse checks a script without running any of it. The error says where it is wrong; it is for the
// author, and repeats names and tokens of the script.
func Parse(text string) (*Script, error) {
	if len(text) > MaxScript {
		return nil, errors.New("the script is longer than 64 KiB")
	}
	if line := tooDeep(text); line > 0 {
		return nil, fmt.Errorf("line %d: brackets or operators are nested more than %d deep", line, maxNesting)
	}
	file, _, err := starlark.SourceProgramOptions(dialect(), fileName, text, func(name string) bool {
		return slices.Contains(predeclared(), name)
	})
	if err != nil {
		return nil, errors.New(where(err))
	}
	s := &Script{text: text}
	for _, statement := range file.Stmts {
		if err := s.add(statement); err != nil {
			start, _ := statement.Span()
			return nil, fmt.Errorf("line %d, column %d: %w", start.Line, start.Col, err)
		}
	}
	for _, needed := range []string{Issue, Revoke} {
		if !slices.Contains(s.functions, needed) {
			return nil, fmt.Errorf("the script has no function %s(ctx)", needed)
		}
	}
	slices.Sort(s.functions)
	return s, nil
}

// add takes a statement of the top level. A function of another name than ours would never be called:
// it is a slip of the author's, or a helper, whose name begins with an underscore.
func (s *Script) add(statement syntax.Stmt) error {
	switch d := statement.(type) {
	case *syntax.LoadStmt:
		return errors.New("load is not possible: a script is one file")
	case *syntax.DefStmt:
		name := d.Name.Name
		switch {
		case strings.HasPrefix(name, "_"):
			return nil
		case !slices.Contains(known(), name):
			return fmt.Errorf("%.40s is none of the functions %s: let the name of a helper begin with an underscore", name, strings.Join(known(), ", "))
		case len(d.Params) != 1:
			return fmt.Errorf("%s takes one argument, ctx", name)
		}
		s.functions = append(s.functions, name)
	}
	return nil
}

// where is what the parser says, as "line 3, column 7: …".
func where(err error) string {
	var list resolve.ErrorList
	if errors.As(err, &list) && len(list) > 0 {
		return at(list[0].Pos, list[0].Msg)
	}
	var parsing syntax.Error
	if errors.As(err, &parsing) {
		return at(parsing.Pos, parsing.Msg)
	}
	return "the script cannot be read"
}

func at(pos syntax.Position, message string) string {
	return fmt.Sprintf("line %d, column %d: %.200s", pos.Line, pos.Col, message)
}

// tooDeep answers the first line on which a script may be nested too deeply; 0 where none is. It
// counts open brackets, and what makes an expression deep without any on one logical line. Brackets
// in texts and comments count, too: nobody writes so many.
func tooDeep(text string) int {
	line, open, deep := 1, 0, 0
	for i, c := range text {
		switch c {
		case '\n':
			line++
			if open <= 0 {
				open, deep = 0, 0
			}
		case '(', '[', '{':
			open++
		case ')', ']', '}':
			open--
		case '-', '+', '~', '*', '/', '%', '|', '&', '^', '<', '>', '.':
			deep++
		case 'n', 'l', 'i', 'a', 'o': // not, lambda, if, and, or
			if word := text[i:]; strings.HasPrefix(word, "not") || strings.HasPrefix(word, "lambda") || strings.HasPrefix(word, "if ") ||
				strings.HasPrefix(word, "and") || strings.HasPrefix(word, "or") {
				deep++
			}
		}
		if open > maxNesting || deep > 10*maxNesting {
			return line
		}
	}
	return 0
}
