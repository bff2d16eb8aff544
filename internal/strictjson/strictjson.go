// Package strictjson decodes JSON that came from outside.
//
// encoding/json takes a duplicate key (the last wins), a key in another case,
// null for a whole document, bad UTF-8 and lone surrogates (both become U+FFFD)
// without an error: a proxy, a policy check and this server could each read
// another document. What this package accepts has one meaning.
package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/fault"
)

const (
	// MaxDepth is how deep arrays and objects may be nested.
	MaxDepth = 32
	// MaxValues is how many values, containers included, a document may hold.
	MaxValues = 10_000
)

// Decode reads one document into v, a pointer. It refuses duplicate, unknown
// and differently spelled keys, invalid text, anything after the document, a
// document that is null, and what exceeds the limits. Inside a document null
// is absence, as in encoding/json.
//
// The error is an invalid_request, or that of a field's own UnmarshalJSON where
// it is a fault, and names the field or the byte, never a value: that may be a
// secret. After an error v may be partly filled and must not be used.
func Decode(data []byte, v any) error {
	if len(data) == 0 {
		return invalid("the body is empty; send a JSON document")
	}
	if at := invalidUTF8(data); at >= 0 {
		return invalid("the text is not UTF-8 at byte %d", at)
	}
	var document json.RawMessage
	if err := json.Unmarshal(data, &document); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return invalid("the body is not one JSON document: see byte %d", syntax.Offset)
		}
		return invalid("the body is not one JSON document")
	}
	s := scanner{data: data}
	if err := s.document(reflect.TypeOf(v)); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return mismatch(err, reflect.TypeOf(v))
	}
	return nil
}

// mismatch describes a value of the wrong type by its field alone:
// UnmarshalTypeError itself quotes numbers.
func mismatch(err error, t reflect.Type) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return invalid("a field has a value of the wrong form")
	}
	kind, _, _ := strings.Cut(wrong.Value, " ")
	if wrong.Field == "" {
		return invalid("the document is %s; %s is wanted", article(kind), wanted(wrong.Type))
	}
	return invalid("field %s is %s; %s is wanted", short(inDocument(wrong.Field, t)), article(kind), wanted(wrong.Type))
}

// inDocument is the path of a field as the document spells it: encoding/json
// also tells the embedded structs on the way, by their Go names.
func inDocument(path string, t reflect.Type) string {
	var names []string
	for name := range strings.SplitSeq(path, ".") {
		if t = structIn(t); t != nil {
			field, inText := structFields(t)[name]
			if embedded, ok := t.FieldByName(name); ok && !inText {
				t = embedded.Type
				continue
			}
			t = field
		}
		names = append(names, name)
	}
	return strings.Join(names, ".")
}

// structIn is the struct that a pointer, list or map leads to; nil without one.
func structIn(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() != reflect.Struct {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			t = t.Elem()
		default:
			return nil
		}
	}
	return t
}

// wanted names a Go type as a JSON type.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("a whole number of %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a whole number of %d bits, not negative", t.Bits())
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "something else"
	}
}

func article(kind string) string {
	switch kind {
	case "array", "object":
		return "an " + kind
	default:
		return "a " + kind
	}
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size <= 1 {
			return at
		}
		at += size
	}
}

// short keeps a name that a caller made up from filling the log.
func short(name string) string {
	const limit = 100
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "…"
	}
	return fmt.Sprintf("%q", name)
}

func invalid(format string, args ...any) error {
	return fault.New(fault.InvalidRequest, "read the request body: "+format, args...)
}
