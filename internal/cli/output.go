package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// say tells a person something that is not the result.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.Err, "scaivault: %s\n", printable(fmt.Sprintf(format, args...)))
}

// show prints a result: as JSON where that was asked for, else as people writes it.
func (a *app) show(document any, people func(*table)) error {
	if a.json {
		e := json.NewEncoder(a.Out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(document)
	}
	t := &table{w: tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)}
	people(t)
	return t.w.Flush()
}

// showList prints all items: as JSON under the name that the API gives the list.
func showList[T any](a *app, name string, items []T, head []string, line func(T) []any) error {
	return a.show(map[string][]T{name: items}, func(t *table) {
		if len(items) == 0 {
			a.say("nothing found")
			return
		}
		t.head(head...)
		for _, item := range items {
			t.row(line(item)...)
		}
	})
}

// table is aligned text.
type table struct{ w *tabwriter.Writer }

func (t *table) head(names ...string) {
	for i, name := range names {
		names[i] = strings.ToUpper(name)
	}
	fmt.Fprintln(t.w, strings.Join(names, "\t"))
}

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = text(cell)
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(texts, "\t"), "\t"))
}

// field is a line of an object; what is empty is left out.
func (t *table) field(name string, value any) {
	if s := text(value); s != "" {
		fmt.Fprintf(t.w, "%s\t%s\n", name, s)
	}
}

// text is a cell: short, on one line, without control characters.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.UTC().Format(time.RFC3339)
	case *time.Time:
		if v == nil {
			return ""
		}
		return text(*v)
	case *string:
		if v == nil {
			return ""
		}
		return printable(*v)
	case []string:
		return printable(strings.Join(v, ", "))
	case map[string]string:
		if len(v) == 0 {
			return ""
		}
		b, _ := json.Marshal(v) // sorted, and one line
		return printable(string(b))
	default:
		return printable(fmt.Sprint(v))
	}
}

// printable keeps what a server or a source wrote from steering the terminal, or from showing in
// another order than it stands (Unicode's format characters).
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return '�'
		}
		return r
	}, s)
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
