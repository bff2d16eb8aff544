package statement

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
)

const (
	base36 = "0123456789abcdefghijklmnopqrstuvwxyz"

	// randomDigits is the least randomness of a name: 56 bits, so that no name
	// is drawn twice in the life of a store.
	randomDigits   = 11
	checksumDigits = 5
	markDigits     = 10
)

// Namer gives the names that accounts bear at the sources, and tells by a keyed
// checksum at their end whether a name is one of this installation's: from the
// name alone, on every source. It is safe for concurrent use if its source of
// randomness is.
type Namer struct {
	installation string
	key          []byte
	random       io.Reader
}

// NewNamer makes the namer of an installation. The key never changes while an
// account of this installation lives. A nil random stands for crypto/rand; a
// source that fails makes the methods panic.
func NewNamer(installation string, key []byte, random io.Reader) *Namer {
	return &Namer{installation: installation, key: key, random: orDefault(random)}
}

// New draws a name of the form v_<role>_<11 random and 5 checksum digits>, at
// most limit bytes long: the role is shortened to fit. The limit is at least 19.
func (n *Namer) New(role string, limit int) string {
	return n.Name(&NameTemplate{
		parts: []namePart{{text: "v_"}, {role: true}, {text: "_"}, {random: randomDigits}},
		fixed: len("v__") + randomDigits + checksumDigits,
		roles: 1,
		limit: limit,
	}, role)
}

// Name draws a name of a custom form. The checksum follows what the template
// gives.
func (n *Namer) Name(t *NameTemplate, role string) string {
	role = squeeze(role)
	if t.roles > 0 {
		role = role[:min(len(role), max(0, t.limit-t.fixed)/t.roles)]
	}
	var b strings.Builder
	for _, p := range t.parts {
		switch {
		case p.role:
			b.WriteString(role)
		case p.random > 0:
			b.WriteString(draw(n.random, base36, p.random))
		default:
			b.WriteString(p.text)
		}
	}
	return b.String() + n.tag("name", b.String(), checksumDigits)
}

// Ours tells whether a name was drawn by this installation. A foreign name
// passes with a chance of one in 60 million.
func (n *Namer) Ours(name string) bool {
	return n.tagged("name", name, checksumDigits)
}

// Mark signs a text that is no user name, such as the name of a group or a
// comment: the payload, an underscore, and a tag of 10 digits.
func (n *Namer) Mark(payload string) string {
	payload += "_"
	return payload + n.tag("mark", payload, markDigits)
}

// OursMark tells whether Mark of this installation gave s.
func (n *Namer) OursMark(s string) bool {
	return n.tagged("mark", s, markDigits)
}

// tag is the keyed checksum of a text; the kind keeps one use of the key from
// vouching for another.
func (n *Namer) tag(kind, text string, digits int) string {
	mac := hmac.New(sha256.New, n.key)
	fmt.Fprintf(mac, "%s\x00%s\x00%s", kind, n.installation, text)
	sum := binary.BigEndian.Uint64(mac.Sum(nil))
	tag := make([]byte, digits)
	for i := range tag {
		tag[i] = base36[sum%36]
		sum /= 36
	}
	return string(tag)
}

func (n *Namer) tagged(kind, s string, digits int) bool {
	if len(s) <= digits {
		return false
	}
	text, tag := s[:len(s)-digits], s[len(s)-digits:]
	return subtle.ConstantTimeCompare([]byte(tag), []byte(n.tag(kind, text, digits))) == 1
}

// NameTemplate is the form of a user name that an operator chose.
type NameTemplate struct {
	parts []namePart
	fixed int // bytes without the role, checksum included
	roles int // how often the role occurs
	limit int
}

type namePart struct {
	text   string
	role   bool
	random int
}

// ParseNameTemplate reads a username_template for names of at most limit bytes:
// letters, digits, "_", "-" and ".", beginning with a letter, {{role}}, and once
// {{random:N}} with N at least 11. Five digits of checksum are added at the end.
// The error is an invalid_config.
func ParseNameTemplate(text string, limit int) (*NameTemplate, error) {
	pieces, err := split(text)
	if err != nil {
		return nil, err
	}
	t := &NameTemplate{limit: limit, fixed: checksumDigits}
	randoms := 0
	for _, p := range pieces {
		digits, random := strings.CutPrefix(p.variable, "random:")
		switch {
		case random:
			n, err := strconv.Atoi(digits)
			if err != nil || n < randomDigits || n > limit {
				return nil, badName("{{random:N}} needs N from %d on", randomDigits)
			}
			randoms++
			t.fixed += n
			t.parts = append(t.parts, namePart{random: n})
		case p.variable == "role":
			t.roles++
			t.parts = append(t.parts, namePart{role: true})
		case p.variable != "":
			return nil, badName("the variable {{%s}} is not known; {{role}} and {{random:N}} are", p.variable)
		default:
			if i := strings.IndexFunc(p.text, func(r rune) bool { return !nameRune(r) }); i >= 0 {
				return nil, badName("the character at byte %d is not allowed; letters, digits, _, - and . are", p.at+i)
			}
			t.fixed += len(p.text)
			t.parts = append(t.parts, namePart{text: p.text})
		}
	}
	switch {
	case randoms != 1:
		return nil, badName("it must hold {{random:N}} once, with N from %d on", randomDigits)
	case t.parts[0].text == "" || !letter(rune(t.parts[0].text[0])):
		return nil, badName("it must begin with a letter")
	case strings.HasPrefix(strings.ToLower(t.parts[0].text), "pg_"):
		return nil, badName("names that begin with pg_ are the source's own")
	case t.fixed > limit:
		return nil, badName("names would have %d characters without the role, of at most %d with their checksum", t.fixed, limit)
	}
	return t, nil
}

func badName(format string, args ...any) error {
	return fault.New(fault.InvalidConfig, "read username_template: "+format, args...)
}

func nameRune(r rune) bool {
	return letter(r) || '0' <= r && r <= '9' || r == '_' || r == '-' || r == '.'
}

func letter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

// squeeze maps a role's name into [a-z0-9_].
func squeeze(role string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		default:
			return '_'
		}
	}, role)
}

func orDefault(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}

// draw gives n characters of the alphabet, each equally likely: bytes beyond
// the largest multiple of its length are thrown away.
func draw(random io.Reader, alphabet string, n int) string {
	usable := 256 - 256%len(alphabet)
	drawn := make([]byte, 0, n)
	buffer := make([]byte, n)
	for len(drawn) < n {
		buffer = buffer[:n-len(drawn)]
		if _, err := io.ReadFull(random, buffer); err != nil {
			panic(fmt.Sprintf("draw a name or password: read random bytes: %v", err))
		}
		for _, b := range buffer {
			if int(b) < usable {
				drawn = append(drawn, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(drawn)
}
