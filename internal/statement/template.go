package statement

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/fault"
)

// Template is a text with variables in double braces. It is immutable.
type Template struct {
	pieces []piece
}

// piece is a stretch of text, or a variable.
type piece struct {
	text     string
	variable string
	at       int // byte in the template
}

// Parse reads a template that may use the allowed variables only. The error is
// an invalid_config that names the variable or the byte.
func Parse(text string, allowed ...string) (*Template, error) {
	pieces, err := split(text)
	if err != nil {
		return nil, err
	}
	if err := checkVariables(pieces, allowed); err != nil {
		return nil, err
	}
	return &Template{pieces: pieces}, nil
}

// Uses tells whether the variable occurs.
func (t *Template) Uses(variable string) bool {
	return slices.ContainsFunc(t.pieces, func(p piece) bool { return p.variable == variable })
}

// Render puts in the values, each as quote gives it: nothing is quoted by
// itself, since a template does not know its language.
func (t *Template) Render(values map[string]string, quote func(variable, value string) (string, error)) (string, error) {
	var b strings.Builder
	for _, p := range t.pieces {
		if p.variable == "" {
			b.WriteString(p.text)
			continue
		}
		value, err := valueOf(values, p.variable)
		if err != nil {
			return "", err
		}
		quoted, err := quote(p.variable, value)
		if err != nil {
			return "", err
		}
		b.WriteString(quoted)
	}
	return b.String(), nil
}

// split cuts a template at its variables.
func split(text string) ([]piece, error) {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, badTemplate("it must be UTF-8 without NUL")
	}
	var pieces []piece
	for at := 0; at < len(text); {
		rest := text[at:]
		open := strings.Index(rest, "{{")
		plain := rest
		if open >= 0 {
			plain = rest[:open]
		}
		if stray := strings.Index(plain, "}}"); stray >= 0 {
			return nil, badTemplate("}} at byte %d closes nothing", at+stray)
		}
		if plain != "" {
			pieces = append(pieces, piece{text: plain, at: at})
		}
		if open < 0 {
			break
		}
		at += open
		end := strings.Index(text[at:], "}}")
		if end < 0 {
			return nil, badTemplate("{{ at byte %d is not closed", at)
		}
		variable := text[at+2 : at+end]
		if !variableName(variable) {
			return nil, badTemplate("what stands in braces at byte %d is no variable", at)
		}
		pieces = append(pieces, piece{variable: variable, at: at})
		at += end + 2
	}
	return pieces, nil
}

// variableName allows a-z, _ and, for a parameter, a colon with digits.
func variableName(s string) bool {
	return s != "" && len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_:0123456789") == ""
}

func checkVariables(pieces []piece, allowed []string) error {
	for _, p := range pieces {
		if p.variable != "" && !slices.Contains(allowed, p.variable) {
			return badTemplate("the variable {{%s}} at byte %d is not known; these are: {{%s}}", p.variable, p.at, strings.Join(allowed, "}}, {{"))
		}
	}
	return nil
}

// valueOf finds the value of a variable, and refuses what no language can quote.
func valueOf(values map[string]string, variable string) (string, error) {
	value, ok := values[variable]
	if !ok {
		return "", badTemplate("there is no value for {{%s}} here", variable)
	}
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return "", badTemplate("the value of {{%s}} must be UTF-8 without NUL", variable)
	}
	return value, nil
}

func badTemplate(format string, args ...any) error {
	return fault.New(fault.InvalidConfig, "read a template: "+format, args...)
}
