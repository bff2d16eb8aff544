package statement

import (
	"slices"
	"strings"
)

// SQL is a template of one or more SQL statements. Each place of a variable
// knows how its value is quoted there, so a value can never end the string or
// the name in which it stands. It is immutable.
type SQL struct {
	statements [][]part
	words      [][]string
}

// part is a stretch of a statement, or a variable with its way of quoting.
type part struct {
	text     string
	variable string
	quote    func(value string) string
}

// Uses tells whether the variable occurs.
func (s *SQL) Uses(variable string) bool {
	return slices.ContainsFunc(s.statements, func(parts []part) bool {
		return slices.ContainsFunc(parts, func(p part) bool { return p.variable == variable })
	})
}

// Has tells whether one statement holds these keywords in a row, whatever
// their case; words in quotes and comments do not count.
func (s *SQL) Has(keywords ...string) bool {
	return slices.ContainsFunc(s.words, func(words []string) bool {
		for at := 0; at+len(keywords) <= len(words); at++ {
			if slices.EqualFunc(words[at:at+len(keywords)], keywords, strings.EqualFold) {
				return true
			}
		}
		return false
	})
}

// Begins tells whether a statement begins with these keywords.
func (s *SQL) Begins(statement int, keywords ...string) bool {
	words := s.words[statement]
	return len(words) >= len(keywords) && slices.EqualFunc(words[:len(keywords)], keywords, strings.EqualFold)
}

// Contains tells whether a statement holds a keyword.
func (s *SQL) Contains(statement int, keyword string) bool {
	return slices.ContainsFunc(s.words[statement], func(word string) bool { return strings.EqualFold(word, keyword) })
}

// Len is the number of statements.
func (s *SQL) Len() int { return len(s.statements) }

// Render gives the statements with their values, without the semicolons. They
// are secret because a password may be in them.
func (s *SQL) Render(values map[string]string) ([]Secret, error) {
	rendered := make([]Secret, 0, len(s.statements))
	for _, parts := range s.statements {
		var b strings.Builder
		for _, p := range parts {
			if p.variable == "" {
				b.WriteString(p.text)
				continue
			}
			value, err := valueOf(values, p.variable)
			if err != nil {
				return nil, err
			}
			b.WriteString(p.quote(value))
		}
		rendered = append(rendered, Secret(b.String()))
	}
	return rendered, nil
}
