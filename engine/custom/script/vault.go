package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

const (
	maxSecrets     = 256
	maxSecretBytes = 1 << 20 // of all secrets of one call
	// shortestScrubbed keeps a root field such as "1" from blacking out every line.
	shortestScrubbed = 4
)

var errTooMuch = errors.New("a text with secrets in it, and all of those that a function gives, have at most 1 MiB")

// vault are the secrets of one call, by number: the root's fields first, then those that were drawn,
// and what was made of any of them.
type vault struct {
	values   []string
	roots    int // of the values, those at the beginning
	size     int
	revealed int // bytes of the texts of the result that hold secrets
}

func newVault(root map[string]statement.Secret) (v *vault, names []string) {
	v = &vault{}
	for name := range root {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		v.values = append(v.values, root[name].Reveal())
	}
	v.roots = len(v.values)
	return v, names
}

// keep takes a secret in.
func (v *vault) keep(value string) (reply, error) {
	v.size += len(value)
	if len(v.values) >= maxSecrets || v.size > maxSecretBytes {
		return reply{}, errors.New("a call can hold at most 256 secrets of together 1 MiB")
	}
	v.values = append(v.values, value)
	number := len(v.values) - 1
	return reply{Secret: &number}, nil
}

// text is what pieces say, and whether that is a secret. A piece is a number to the child and may be a
// mebibyte here, and it names as many as it likes: so what is made of them is bounded on the way.
func (v *vault) text(pieces []piece) (text string, secret bool, err error) {
	var whole strings.Builder
	for _, p := range pieces {
		if p.Secret == nil {
			whole.Write(p.Text)
			continue
		}
		if *p.Secret < 0 || *p.Secret >= len(v.values) {
			return "", false, errors.New("there is no such secret")
		}
		value := v.values[*p.Secret]
		if p.Quoted {
			value = quoted(value)
		}
		secret = true
		if whole.Len()+len(value) > maxSecretBytes {
			return "", false, errTooMuch
		}
		whole.WriteString(value)
	}
	return whole.String(), secret, nil
}

// quoted is a text as it stands within a JSON string.
func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		return "" // a string is always JSON
	}
	return string(b[1 : len(b)-1])
}

// derive makes a text of others. Of a secret comes a secret.
func (v *vault) derive(texts [][]piece, of func(texts []string) (string, error)) (reply, error) {
	var plain []string
	tainted := false
	for _, pieces := range texts {
		text, secret, err := v.text(pieces)
		if err != nil {
			return reply{}, err
		}
		tainted = tainted || secret
		plain = append(plain, text)
	}
	made, err := of(plain)
	if err != nil {
		return reply{}, err
	}
	if tainted {
		return v.keep(made)
	}
	return reply{Text: []byte(made)}, nil
}

// scrub takes all secrets out of a text.
func (v *vault) scrub(text string) string {
	return statement.Redact(text, v.values, shortestScrubbed)
}

// mark is what stands for a secret in JSON that the child writes, before its number and a closing
// NUL, which JSON texts from outside hold escaped only.
func mark(nonce string) string { return "\x00" + nonce + ":" }

// reveal puts the secrets into the result of a function. They may stand in data only: what else a
// function gives is stored or shown.
func (v *vault) reveal(output, nonce string) (json.RawMessage, error) {
	decoder := json.NewDecoder(strings.NewReader(output))
	decoder.UseNumber()
	var result map[string]any
	if err := decoder.Decode(&result); err != nil {
		return nil, errors.New("a function must give a dict that JSON can hold, or None")
	}
	for field, value := range result {
		revealed, found, err := v.replace(value, nonce)
		if err != nil {
			return nil, err
		}
		if field != "data" && (found || v.repeated(value)) {
			return nil, fmt.Errorf("a secret stands in %.40q: only data may hold any", field)
		}
		result[field] = revealed
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(result); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(buffer.Bytes()), nil
}

// repeated tells whether a text of a JSON value is a secret that was made here: one that a source has sent
// back is a plain text to the script.
func (v *vault) repeated(value any) bool {
	switch x := value.(type) {
	case string:
		return len(x) >= shortestScrubbed && slices.Contains(v.values[v.roots:], x)
	case []any:
		return slices.ContainsFunc(x, v.repeated)
	case map[string]any:
		for key, item := range x {
			if v.repeated(key) || v.repeated(item) {
				return true
			}
		}
	}
	return false
}

// replace puts secrets in the place of their marks, in a JSON value.
func (v *vault) replace(value any, nonce string) (replaced any, found bool, err error) {
	switch x := value.(type) {
	case string:
		if !strings.Contains(x, mark(nonce)) {
			return x, false, nil
		}
		pieces, err := split(x, nonce, false)
		if err != nil {
			return nil, false, err
		}
		text, _, err := v.text(pieces)
		if v.revealed += len(text); err == nil && v.revealed > maxSecretBytes {
			err = errTooMuch
		}
		return text, true, err
	case []any:
		for i := range x {
			item, has, err := v.replace(x[i], nonce)
			if err != nil {
				return nil, false, err
			}
			x[i], found = item, found || has
		}
	case map[string]any:
		for key := range x {
			item, has, err := v.replace(x[key], nonce)
			if err != nil {
				return nil, false, err
			}
			x[key], found = item, found || has
		}
	}
	return value, found, nil
}

// split takes a text apart at its marks. Quoted is for secrets that stand within JSON strings.
func split(text, nonce string, quoted bool) ([]piece, error) {
	opening, closing := mark(nonce), "\x00"
	if quoted { // NUL as JSON writes it
		opening, closing = `\u0000`+nonce+":", `\u0000`
	}
	var pieces []piece
	for {
		before, rest, found := strings.Cut(text, opening)
		if before != "" {
			pieces = append(pieces, piece{Text: []byte(before)})
		}
		if !found {
			return pieces, nil
		}
		digits, after, closed := strings.Cut(rest, closing)
		number, err := strconv.Atoi(digits)
		if err != nil || !closed {
			return nil, errors.New("a mark of a secret is broken")
		}
		pieces = append(pieces, piece{Secret: &number, Quoted: quoted})
		text = after
	}
}
