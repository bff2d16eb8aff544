package statement

import (
	"crypto/subtle"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a text that no log, error, JSON document or table may hold. Every
// way of printing it that Go knows gives a mask; Reveal is the only way to the
// text, so that each use can be found by searching for it.
//
// It hides from accidents, not from reflection or a memory dump. It must not be
// the key of a map: encoding/json writes keys of a string type as they are.
type Secret string

// Reveal answers the text.
func (s Secret) Reveal() string { return string(s) }

// Equal compares in a time that depends on the lengths only.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s), []byte(other)) == 1
}

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Format masks under every verb, %x and %q included.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// Value refuses: database/sql would otherwise write a string type in the clear.
func (s Secret) Value() (driver.Value, error) {
	return nil, errors.New("write a secret to a table: seal it first")
}
