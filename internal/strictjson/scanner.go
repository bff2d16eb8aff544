package strictjson

import (
	"encoding"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
)

// scanner walks a document that is known to be valid JSON beside the type that
// it will be decoded into, and finds what encoding/json lets pass.
type scanner struct {
	data   []byte
	at     int
	values int
	path   []string
}

func (s *scanner) document(t reflect.Type) error {
	s.space()
	if s.data[s.at] == 'n' {
		return invalid("the document is null; send an object")
	}
	return s.value(t, 0)
}

// value walks one value. A nil type stands for one that takes any document.
func (s *scanner) value(t reflect.Type, depth int) error {
	if s.values++; s.values > MaxValues {
		return invalid("the document holds more than %d values", MaxValues)
	}
	s.space()
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	ownForm := decodesItself(t)
	start, kind := s.at, s.data[s.at]
	var err error
	switch {
	case kind == '{' || kind == '[':
		if depth == MaxDepth {
			return invalid("the document is nested deeper than %d", MaxDepth)
		}
		within := t
		if ownForm {
			within = nil
		}
		if kind == '{' {
			err = s.object(within, depth+1)
		} else {
			err = s.array(within, depth+1)
		}
	case kind == '"':
		_, err = s.text()
	default:
		s.scalar()
	}
	if err == nil && ownForm {
		err = s.tryOut(t, s.data[start:s.at])
	}
	return err
}

func (s *scanner) object(t reflect.Type, depth int) error {
	member := members(t)
	seen := make(map[string]struct{})
	s.at++ // {
	for s.space(); s.data[s.at] != '}'; s.space() {
		if s.data[s.at] == ',' {
			s.at++
			s.space()
		}
		name, err := s.text()
		if err != nil {
			return err
		}
		s.path = append(s.path, name)
		if _, twice := seen[name]; twice {
			return invalid("field %s is given twice", s.field())
		}
		seen[name] = struct{}{}
		fieldType, known := member(name)
		if !known {
			return invalid("field %s is not known here; names are told apart by case", s.field())
		}
		s.space()
		s.at++ // :
		if err := s.value(fieldType, depth); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
	}
	s.at++ // }
	return nil
}

func (s *scanner) array(t reflect.Type, depth int) error {
	var element reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		element = t.Elem()
	}
	s.at++ // [
	s.space()
	for i := 0; s.data[s.at] != ']'; i++ {
		if s.data[s.at] == ',' {
			s.at++
		}
		s.path = append(s.path, strconv.Itoa(i))
		if err := s.value(element, depth); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
		s.space()
	}
	s.at++ // ]
	return nil
}

// text walks a string and answers what it says.
func (s *scanner) text() (string, error) {
	start := s.at
	escaped := false
	for s.at++; s.data[s.at] != '"'; s.at++ {
		if s.data[s.at] != '\\' {
			continue
		}
		escaped = true
		s.at++
		if s.data[s.at] != 'u' {
			continue
		}
		first := s.codeUnit()
		if first < 0xd800 || first > 0xdfff {
			continue
		}
		if first > 0xdbff || s.data[s.at+1] != '\\' || s.data[s.at+2] != 'u' {
			return "", s.loneSurrogate(start)
		}
		s.at += 2
		if second := s.codeUnit(); second < 0xdc00 || second > 0xdfff {
			return "", s.loneSurrogate(start)
		}
	}
	s.at++
	if !escaped {
		return string(s.data[start+1 : s.at-1]), nil
	}
	var text string
	if err := json.Unmarshal(s.data[start:s.at], &text); err != nil {
		return "", invalid("the text at byte %d cannot be read", start)
	}
	return text, nil
}

// codeUnit reads the four digits after a \u and stops at the last.
func (s *scanner) codeUnit() uint64 {
	unit, _ := strconv.ParseUint(string(s.data[s.at+1:s.at+5]), 16, 16)
	s.at += 4
	return unit
}

func (s *scanner) loneSurrogate(at int) error {
	return invalid("the text at byte %d holds half of a surrogate pair", at)
}

func (s *scanner) scalar() {
	for s.at < len(s.data) && !strings.ContainsRune(" \t\r\n,]}", rune(s.data[s.at])) {
		s.at++
	}
}

func (s *scanner) space() {
	for s.at < len(s.data) && strings.ContainsRune(" \t\r\n", rune(s.data[s.at])) {
		s.at++
	}
}

func (s *scanner) field() string { return short(strings.Join(s.path, ".")) }

// tryOut decodes a value whose type reads its own form, because only here its
// error can be told with the name of the field. Its text is shown only where
// it is ours: the standard library's quote the value.
func (s *scanner) tryOut(t reflect.Type, value []byte) error {
	err := json.Unmarshal(value, reflect.New(t).Interface())
	if err == nil {
		return nil
	}
	where := "the document"
	if len(s.path) > 0 {
		where = "field " + s.field()
	}
	var ours *fault.Error
	if errors.As(err, &ours) {
		named := *ours
		named.Message = where + ": " + ours.Message
		return &named
	}
	return invalid("%s has the wrong form", where)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func decodesItself(t reflect.Type) bool {
	if t == nil {
		return false
	}
	p := reflect.PointerTo(t)
	return p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler)
}

// members answers which names an object of type t may hold, and their types.
// Where t is neither a struct nor a map, every name passes: encoding/json will
// say that no object belongs here.
func members(t reflect.Type) func(name string) (reflect.Type, bool) {
	switch {
	case t != nil && t.Kind() == reflect.Struct:
		fields := structFields(t)
		return func(name string) (reflect.Type, bool) {
			f, ok := fields[name]
			return f, ok
		}
	case t != nil && t.Kind() == reflect.Map:
		return func(string) (reflect.Type, bool) { return t.Elem(), true }
	default:
		return func(string) (reflect.Type, bool) { return nil, true }
	}
}

// structFields are the names that encoding/json gives to the fields of t, with
// those of embedded structs.
func structFields(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		if !f.IsExported() || tag == "-" || f.Anonymous && name == "" && isStruct(f.Type) {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = f.Type
	}
	return fields
}

func isStruct(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}
