package statement

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// Redact takes secrets out of a text that people are to see, in the forms in which they usually stand there:
// as they are, each of their lines, escaped as in JSON or in a URL, in hex, and in base64, also as a part
// of what was encoded, such as of "user:password". At its end, where it may have been cut, a text may also hold
// the beginning of one. A form shorter than shortest bytes stays, lest a port black out every line. What is
// written in another way, or in pieces, is not found.
func Redact(text string, secrets []string, shortest int) string {
	var all []string
	for _, secret := range secrets {
		for _, form := range forms(secret, len(text)) {
			if len(form) >= shortest {
				all = append(all, form)
			}
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // of two the one that holds the other
	for _, form := range all {
		text = strings.ReplaceAll(text, form, redacted)
	}
	for _, form := range all {
		if n := overlap(text, form); n >= shortest {
			return text[:len(text)-n] + redacted
		}
	}
	return text
}

// overlap is how much of the beginning of a form a text ends with, in time proportional to the form (Knuth, Morris
// and Pratt).
func overlap(text, form string) int {
	text = text[max(0, len(text)-len(form)+1):]
	shorter := make([]int, len(form)) // by the last byte of a match, how much there is in a shorter one
	step := func(n int, b byte) int {
		for n > 0 && form[n] != b {
			n = shorter[n-1]
		}
		if form[n] == b {
			n++
		}
		return n
	}
	for i := 1; i < len(form); i++ {
		shorter[i] = step(shorter[i-1], form[i])
	}
	n := 0
	for i := range len(text) {
		if n = step(n, text[i]); n == len(form) {
			n = shorter[n-1]
		}
	}
	return n
}

// forms are the ways to write a secret. Of one that is longer than the text there can only be the beginning, or a
// line: so secrets of a mebibyte do not make every word that is looked at cost many.
func forms(secret string, longest int) []string {
	lines := strings.Split(secret, "\n")
	if secret = secret[:min(len(secret), longest)]; secret == "" {
		return nil
	}
	lower := hex.EncodeToString([]byte(secret))
	all := []string{
		secret, quoted(secret, true), quoted(secret, false), url.QueryEscape(secret), url.PathEscape(secret), lower, strings.ToUpper(lower),
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// Where it begins among three bytes decides how it looks; its first and last character depend on what
		// stands beside it.
		for before := range 3 {
			whole := encoding.EncodeToString(append(make([]byte, before), secret...))
			all = append(all, whole[(4*before+2)/3:(before+len(secret))*4/3])
		}
	}
	return append(all, lines...)
}

// quoted is a text as it stands between the quotes of JSON.
func quoted(text string, html bool) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(html)
	if encoder.Encode(text) != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(b.String(), `"`), "\"\n")
}
