package rotation

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/statement"
)

// Bounds of a template: its text, its variables, the characters of one, and the characters that are
// drawn at random, of which there must be enough that nobody guesses the value.
const (
	maxTemplate  = 1024
	maxVariables = 32
	maxDrawn     = 256
	minDrawn     = 16
)

// piece is a part of a template: fixed text, or n characters of what a variable names.
type piece struct {
	text     string
	variable string
	n        int
}

var alphabets = map[string]string{
	"random": statement.Upper + statement.Lower + statement.Digits,
	"lower":  statement.Lower,
	"upper":  statement.Upper,
	"digits": statement.Digits,
	"hex":    statement.Digits + "abcdef",
}

// parseTemplate reads a template in one pass.
func parseTemplate(text string) ([]piece, error) {
	if text == "" || len(text) > maxTemplate {
		return nil, fmt.Errorf("1 to %d bytes", maxTemplate)
	}
	var pieces []piece
	drawn, variables := 0, 0
	for text != "" {
		fixed, rest, found := strings.Cut(text, "{{")
		if strings.Contains(fixed, "}}") {
			return nil, fmt.Errorf("}} without {{")
		}
		if fixed != "" {
			pieces = append(pieces, piece{text: fixed})
		}
		if !found {
			break
		}
		inside, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return nil, fmt.Errorf("{{ without }}")
		}
		v, err := parseVariable(inside)
		if err != nil {
			return nil, err
		}
		if variables++; variables > maxVariables {
			return nil, fmt.Errorf("at most %d variables", maxVariables)
		}
		drawn += v.n
		pieces = append(pieces, v)
		text = after
	}
	if drawn < minDrawn {
		return nil, fmt.Errorf("at least %d characters are to be drawn at random", minDrawn)
	}
	return pieces, nil
}

func parseVariable(inside string) (piece, error) {
	name, count, counted := strings.Cut(inside, ":")
	if name == "uuid" && !counted {
		return piece{variable: name, n: minDrawn}, nil
	}
	if _, ok := alphabets[name]; !ok {
		return piece{}, fmt.Errorf("the variables are {{random:N}}, {{hex:N}}, {{digits:N}}, {{lower:N}}, {{upper:N}} and {{uuid}}")
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxDrawn || strconv.Itoa(n) != count {
		return piece{}, fmt.Errorf("{{%s:N}} with N from 1 to %d", name, maxDrawn)
	}
	return piece{variable: name, n: n}, nil
}

func checkTemplate(p *api.GeneratorParameters) []string {
	if _, err := parseTemplate(p.Template); err != nil {
		return []string{"parameters.template: " + err.Error()}
	}
	return nil
}

func templateValue(p api.GeneratorParameters, _ string) (generated, error) {
	pieces, err := parseTemplate(p.Template)
	if err != nil {
		return generated{}, err
	}
	var b strings.Builder
	for _, v := range pieces {
		text := v.text
		switch v.variable {
		case "":
		case "uuid":
			text, err = uuid()
		default:
			text, err = draw(alphabets[v.variable], v.n)
		}
		if err != nil {
			return generated{}, err
		}
		b.WriteString(text)
	}
	return generated{value: statement.Secret(b.String())}, nil
}

func between(least, most int) string { return fmt.Sprintf("%d to %d", least, most) }
