package script

import (
	"maps"
	"net/url"
	"slices"
	"time"

	starjson "go.starlark.net/lib/json"
	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// predeclared are the names that a script knows besides Starlark's own.
func predeclared() []string {
	return slices.Collect(maps.Keys((&parent{}).modules(nil)))
}

// modules are what those names stand for.
func (p *parent) modules(root []string) starlark.StringDict {
	fields := starlark.StringDict{}
	for number, name := range root {
		fields[name] = &secret{number: number, of: p}
	}
	return starlark.StringDict{
		"http":   p.httpModule(),
		"json":   module("json", starlark.StringDict{"encode": starlark.NewBuiltin("json.encode", p.jsonEncode), "decode": starjson.Module.Members["decode"]}),
		"base64": module("base64", starlark.StringDict{"encode": p.base64("encode"), "decode": p.base64("decode")}),
		"hash":   p.digests("hash", wishDigest, "md5", "sha1", "sha256", "sha512"),
		"hmac":   p.digests("hmac", wishMAC, "sha1", "sha256", "sha512"),
		"time":   timeModule(),
		"random": module("random", starlark.StringDict{"password": p.random("password", 32), "hex": p.random("hex", 16)}),
		"root":   starlarkstruct.FromStringDict(starlark.String("root"), fields),
	}
}

func module(name string, members starlark.StringDict) *starlarkstruct.Module {
	return &starlarkstruct.Module{Name: name, Members: members}
}

type builtin = func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error)

// jsonEncode is json.encode(x). With a secret in x the text is a secret.
func (p *parent) jsonEncode(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var x starlark.Value
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &x); err != nil {
		return nil, err
	}
	text, err := p.jsonText(thread, x)
	if err != nil {
		return nil, err
	}
	if !secretIn(text) {
		return starlark.String(plain(text)), nil
	}
	return p.value(wish{Kind: wishJoin, Texts: [][]piece{text}})
}

// base64 is base64.encode(x) and base64.decode(x), with url=True in the alphabet of URLs.
func (p *parent) base64(direction string) *starlark.Builtin {
	return starlark.NewBuiltin("base64."+direction, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		var x starlark.Value
		var inURL bool
		if err := starlark.UnpackArgs(b.Name(), args, kwargs, "x", &x, "url?", &inURL); err != nil {
			return nil, err
		}
		texts, err := textsOf(x)
		if err != nil {
			return nil, err
		}
		name := direction
		if inURL {
			name += "-url"
		}
		return p.value(wish{Kind: wishBase64, Name: name, Texts: texts})
	})
}

// digests is a module of hash functions: hash.sha256(x), hmac.sha256(key, x). The encoding of the
// result is hex, base64 or raw.
func (p *parent) digests(name, kind string, algorithms ...string) starlark.Value {
	members := starlark.StringDict{}
	for _, algorithm := range algorithms {
		members[algorithm] = starlark.NewBuiltin(name+"."+algorithm, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var key, x starlark.Value
			encoding := "hex"
			given := []any{"x", &x, "encoding?", &encoding}
			if kind == wishMAC {
				given = append([]any{"key", &key}, given...)
			}
			if err := starlark.UnpackArgs(b.Name(), args, kwargs, given...); err != nil {
				return nil, err
			}
			values := []starlark.Value{x}
			if kind == wishMAC {
				values = []starlark.Value{x, key}
			}
			texts, err := textsOf(values...)
			if err != nil {
				return nil, err
			}
			return p.value(wish{Kind: kind, Name: algorithm + " " + encoding, Texts: texts})
		})
	}
	return module(name, members)
}

// random is random.password(length), a secret, and random.hex(bytes), a string.
func (p *parent) random(name string, usual int) *starlark.Builtin {
	return starlark.NewBuiltin("random."+name, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		size := usual
		if err := starlark.UnpackArgs(b.Name(), args, kwargs, "size?", &size); err != nil {
			return nil, err
		}
		return p.value(wish{Kind: wishRandom, Name: name, Size: size})
	})
}

// maxSleep bounds one time.sleep.
const maxSleep = 5 * time.Second

// timeModule is Starlark's own with UTC for local time, and time.sleep(duration).
func timeModule() starlark.Value {
	members := maps.Clone(startime.Module.Members)
	members["sleep"] = starlark.NewBuiltin("time.sleep", func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		var d startime.Duration
		if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &d); err != nil {
			return nil, err
		}
		time.Sleep(min(time.Duration(d), maxSleep))
		return starlark.None, nil
	})
	return module("time", members)
}

func (p *parent) httpModule() starlark.Value {
	members := starlark.StringDict{
		"request": starlark.NewBuiltin("http.request", p.httpCall("")),
		"escape": starlark.NewBuiltin("http.escape", func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var text string
			if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &text); err != nil {
				return nil, err
			}
			return starlark.String(url.PathEscape(text)), nil
		}),
	}
	for name, method := range map[string]string{"get": "GET", "post": "POST", "put": "PUT", "patch": "PATCH", "delete": "DELETE"} {
		members[name] = starlark.NewBuiltin("http."+name, p.httpCall(method))
	}
	return module("http", members)
}
