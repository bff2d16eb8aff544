package cli

import "testing"

func TestPrintable(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"two\nlines":                "two lines",
		"\x1b[31mred\x1b]0;title\a": "�[31mred�]0;title�",
		"user\u202egnp.exe\u2066":   "user�gnp.exe�",
		"Größe ✓":                   "Größe ✓",
	} {
		if got := printable(given); got != want {
			t.Errorf("printable(%q) = %q, want %q", given, got, want)
		}
	}
}
