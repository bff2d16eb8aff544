package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	starjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// secret is a text that only the parent knows, by its number there. It can be joined with + and given
// to builtins; everything else that a script can do with it shows ****.
type secret struct {
	number int
	of     *parent
}

const mask = "****"

func (s *secret) String() string        { return mask }
func (s *secret) Type() string          { return "secret" }
func (s *secret) Freeze()               {}
func (s *secret) Truth() starlark.Bool  { return true }
func (s *secret) Hash() (uint32, error) { return 0, errors.New("a secret cannot be a key") }

// Binary joins: what a secret is part of is a secret.
func (s *secret) Binary(op syntax.Token, other starlark.Value, side starlark.Side) (starlark.Value, error) {
	if op != syntax.PLUS {
		return nil, nil
	}
	texts := [][]piece{s.pieces(), nil}
	var err error
	if texts[1], err = textOf(other); err != nil {
		return nil, err
	}
	if side == starlark.Right {
		slices.Reverse(texts)
	}
	return s.of.value(wish{Kind: wishJoin, Texts: [][]piece{slices.Concat(texts...)}})
}

// MarshalJSON writes the mark that the parent puts the secret in place of.
func (s *secret) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `"\u0000%s:%d\u0000"`, s.of.nonce, s.number), nil
}

func (s *secret) pieces() []piece { return []piece{{Secret: &s.number}} }

// textOf is a value where a text is wanted.
func textOf(v starlark.Value) ([]piece, error) {
	switch x := v.(type) {
	case starlark.String:
		return []piece{{Text: []byte(x)}}, nil
	case starlark.Bytes:
		return []piece{{Text: []byte(x)}}, nil
	case *secret:
		return x.pieces(), nil
	}
	return nil, fmt.Errorf("a %s stands where a string, bytes or a secret is wanted", v.Type())
}

// textsOf are several.
func textsOf(vs ...starlark.Value) ([][]piece, error) {
	var texts [][]piece
	for _, v := range vs {
		text, err := textOf(v)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// record is a dict whose entries are read as fields: ctx.
type record struct{ starlark.Value }

func (r record) Type() string { return "ctx" }

func (r record) Attr(name string) (starlark.Value, error) {
	if d, ok := r.Value.(*starlark.Dict); ok {
		v, found, err := d.Get(starlark.String(name))
		if found || err != nil {
			return v, err
		}
	}
	return nil, nil
}

func (r record) AttrNames() []string {
	d, ok := r.Value.(*starlark.Dict)
	if !ok {
		return nil
	}
	var names []string
	for _, key := range d.Keys() {
		if name, ok := starlark.AsString(key); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// encode writes a value as JSON, with marks in the place of secrets.
func encode(thread *starlark.Thread, v starlark.Value) (string, error) {
	text, err := starlark.Call(thread, starjson.Module.Members["encode"], starlark.Tuple{v}, nil)
	if err != nil {
		return "", err
	}
	s, _ := starlark.AsString(text)
	return s, nil
}

// decode reads JSON.
func decode(thread *starlark.Thread, text []byte) (starlark.Value, error) {
	if len(text) == 0 {
		return starlark.NewDict(0), nil
	}
	return starlark.Call(thread, starjson.Module.Members["decode"], starlark.Tuple{starlark.String(text)}, nil)
}

// jsonText is a value as JSON where a text is wanted.
func (p *parent) jsonText(thread *starlark.Thread, v starlark.Value) ([]piece, error) {
	text, err := encode(thread, v)
	if err != nil {
		return nil, err
	}
	return split(text, p.nonce, true)
}

// secretIn tells whether a text holds a secret.
func secretIn(text []piece) bool {
	return slices.ContainsFunc(text, func(p piece) bool { return p.Secret != nil })
}

// plain is a text without secrets.
func plain(text []piece) string {
	var whole strings.Builder
	for _, p := range text {
		whole.Write(p.Text)
	}
	return whole.String()
}
