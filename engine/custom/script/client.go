package script

import (
	"errors"
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// httpCall is http.get(url, …) and its like; http.request(method, url, …) where no method is given.
// The arguments are headers (a dict), auth (user and password) and one of json, form (a dict) and
// body. Secrets may stand in all of them but in the URL and in the names of headers.
func (p *parent) httpCall(method string) builtin {
	return func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		w := wish{Kind: wishHTTP, Method: method}
		var headers, form *starlark.Dict
		var auth starlark.Tuple
		var body, jsonBody starlark.Value
		given := []any{"url", &w.URL, "json?", &jsonBody, "form?", &form, "body?", &body, "headers?", &headers, "auth?", &auth}
		if method == "" {
			given = append([]any{"method", &w.Method}, given...)
		}
		if err := starlark.UnpackArgs(b.Name(), args, kwargs, given...); err != nil {
			return nil, err
		}
		w.Headers = map[string][]piece{}
		err := p.fill(thread, &w, jsonBody, form, body)
		if err != nil {
			return nil, err
		}
		if err := w.addHeaders(headers); err != nil {
			return nil, err
		}
		if auth != nil {
			if len(auth) != 2 {
				return nil, errors.New("auth is a user and a password: auth=(user, password)")
			}
			if w.Auth, err = textsOf(auth...); err != nil {
				return nil, err
			}
		}
		r, err := p.ask(w)
		if err != nil {
			return nil, err
		}
		if r.Response == nil {
			return nil, errors.New("the parent gave no answer")
		}
		return r.Response.value(), nil
	}
}

// fill sets the body from the one argument that gives it.
func (p *parent) fill(thread *starlark.Thread, w *wish, jsonBody starlark.Value, form *starlark.Dict, body starlark.Value) (err error) {
	count := 0
	if jsonBody != nil {
		count++
		w.Headers["content-type"] = []piece{{Text: []byte("application/json")}}
		w.Body, err = p.jsonText(thread, jsonBody)
	}
	if form != nil && err == nil {
		count++
		w.Headers["content-type"] = []piece{{Text: []byte("application/x-www-form-urlencoded")}}
		w.Body, err = p.formText(form)
	}
	if body != nil && err == nil {
		count++
		w.Body, err = textOf(body)
	}
	if count > 1 {
		return errors.New("a request has one body: give json, form or body")
	}
	return err
}

// formText is a dict as a form.
func (p *parent) formText(form *starlark.Dict) ([]piece, error) {
	var whole []piece
	for _, item := range form.Items() {
		texts, err := textsOf(item[0], item[1])
		if err != nil {
			return nil, err
		}
		for i, separator := range []string{"&", "="} {
			if len(whole) > 0 {
				whole = append(whole, piece{Text: []byte(separator)})
			}
			escaped, err := p.value(wish{Kind: wishQuery, Texts: texts[i : i+1]})
			if err != nil {
				return nil, err
			}
			text, err := textOf(escaped)
			if err != nil {
				return nil, err
			}
			whole = append(whole, text...)
		}
	}
	return whole, nil
}

func (w *wish) addHeaders(headers *starlark.Dict) error {
	if headers == nil {
		return nil
	}
	for _, item := range headers.Items() {
		name, ok := starlark.AsString(item[0])
		if !ok {
			return fmt.Errorf("the name of a header is a string, not a %s", item[0].Type())
		}
		text, err := textOf(item[1])
		if err != nil {
			return fmt.Errorf("header %.40q: %w", name, err)
		}
		w.Headers[name] = text
	}
	return nil
}

// value is the answer as scripts see it: status, headers, body and json().
func (r *response) value() starlark.Value {
	headers := starlark.NewDict(len(r.Headers))
	for name, value := range r.Headers {
		_ = headers.SetKey(starlark.String(name), starlark.String(value)) // strings are keys, and nobody iterates
	}
	body := starlark.String(r.Body)
	return starlarkstruct.FromStringDict(starlark.String("response"), starlark.StringDict{
		"status": starlark.MakeInt(r.Status), "headers": headers, "body": body,
		"json": starlark.NewBuiltin("response.json", func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 0); err != nil {
				return nil, err
			}
			return decode(thread, []byte(body))
		}),
	})
}
