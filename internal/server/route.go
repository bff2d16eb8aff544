package server

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// route is one operation of the contract. The mux, the access matrix of the tests and
// openapi.yaml are all made from the same table of routes, so they cannot disagree.
type route struct {
	method  string
	pattern string // below /v1: "/dynamic/engines/{engine}"; a verb follows a colon
	doc     string // one sentence: what it does
	status  int    // of success
	others  []int  // further statuses of success: 202, 204

	scopes   []string // any of these suffices; empty: every authenticated caller
	public   bool     // no bearer token is asked for
	params   []param  // every query parameter that is known; all others are refused
	request  reflect.Type
	response reflect.Type
	optional bool   // the body may be empty, which counts as {}
	consumes string // content type of the body; "" where none is taken
	produces string // content type of the answer; "" where there is none

	timeout time.Duration // 0: defaultTimeout; call.wait moves it
	exempt  bool          // from the limit of requests in flight: health must answer under load
	handle  func(c *call) error
}

// none is the request of an operation that takes no body, and the answer of one that has none.
type none struct{}

const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// op is an operation with a JSON body. A nil answer is 204, and [call.accepted] makes it 202;
// declare both with [route.or].
func op[Req, Resp any](method, pattern string, status int, doc string, h func(c *call, req *Req) (*Resp, error)) route {
	rt := act(method, pattern, status, doc, func(c *call) (*Resp, error) {
		req := new(Req)
		if err := c.decode(req); err != nil {
			return nil, err
		}
		return h(c, req)
	})
	rt.request = reflect.TypeFor[Req]()
	rt.optional = allOptional(rt.request)
	rt.consumes = typeJSON
	return rt
}

// act is an operation without a body: an empty one or {} is accepted.
func act[Resp any](method, pattern string, status int, doc string, h func(c *call) (*Resp, error)) route {
	rt := route{method: method, pattern: pattern, status: status, doc: doc}
	if rt.response = reflect.TypeFor[Resp](); rt.response == reflect.TypeFor[none]() {
		rt.response = nil
	} else {
		rt.produces = typeJSON
	}
	rt.handle = func(c *call) error {
		if c.route.consumes == "" {
			if err := c.noBody(); err != nil {
				return err
			}
		}
		resp, err := h(c)
		if err != nil {
			return err
		}
		if resp == nil || c.route.response == nil {
			return c.empty()
		}
		return c.json(resp)
	}
	return rt
}

// get is a read.
func get[Resp any](pattern, doc string, h func(c *call) (*Resp, error)) route {
	return act(http.MethodGet, pattern, http.StatusOK, doc, h)
}

// remove is a DELETE with neither body nor answer: 204.
func remove(pattern, doc string, h func(c *call) error) route {
	return act(http.MethodDelete, pattern, http.StatusNoContent, doc, func(c *call) (*none, error) { return nil, h(c) })
}

// form is a public POST with a form body, which RFC 6749 asks of token endpoints. The handler
// reads its fields with [call.form].
func form[Resp any](pattern, doc string, h func(c *call) (*Resp, error)) route {
	rt := act(http.MethodPost, pattern, http.StatusOK, doc, h)
	rt.public = true
	rt.consumes = typeForm
	return rt
}

// raw is a public read whose answer is no JSON.
func raw(pattern, contentType, doc string, h func(c *call) ([]byte, error)) route {
	return route{method: http.MethodGet, pattern: pattern, status: http.StatusOK, doc: doc, public: true,
		produces: contentType, handle: func(c *call) error {
			if err := c.noBody(); err != nil {
				return err
			}
			body, err := h(c)
			if err != nil {
				return err
			}
			return c.write(body)
		}}
}

// needs names the scopes of which the token must hold one. It is for the matrix of the tests and
// for openapi.yaml: what decides is the door, inside the operation.
func (rt route) needs(scopes ...string) route { rt.scopes = scopes; return rt }

// query adds the parameters that the operation knows.
func (rt route) query(params ...param) route {
	rt.params = append(slices.Clip(rt.params), params...)
	return rt
}

// list adds the parameters of every list.
func (rt route) list(params ...param) route {
	return rt.query(append(params, pageParams()...)...)
}

// or declares further statuses of success.
func (rt route) or(statuses ...int) route { rt.others = statuses; return rt }

// open makes the operation public.
func (rt route) open() route { rt.public = true; return rt }

// always answers even when the server is busy or stopping.
func (rt route) always() route { rt.exempt = true; return rt }

// within sets the operation's time limit; [call.extend] moves it while it runs.
func (rt route) within(d time.Duration) route { rt.timeout = d; return rt }

// shaped sets the body's type for openapi.yaml where the operation decodes it in two steps; with
// optional it may be empty.
func (rt route) shaped(request reflect.Type, optional bool) route {
	rt.request, rt.optional = request, optional
	return rt
}

// split separates the mux's pattern from the verb behind the colon.
func (rt route) split() (pattern, verb string) {
	at := strings.LastIndex(rt.pattern, "}:")
	if at < 0 {
		return rt.pattern, ""
	}
	return rt.pattern[:at+1], rt.pattern[at+2:]
}

// category names the route in metrics and logs: its pattern without what callers choose.
func (rt *route) category() string {
	var words []string
	for part := range strings.FieldsFuncSeq(rt.pattern, func(r rune) bool { return r == '/' || r == ':' }) {
		if !strings.HasPrefix(part, "{") {
			words = append(words, part)
		}
	}
	return strings.Join(words, "/")
}

// allOptional tells whether {} is a whole request: every field may be absent.
func allOptional(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for f := range fields(t) {
		if _, opts, _ := strings.Cut(f.Tag.Get("json"), ","); !strings.Contains(opts, "omitempty") {
			return false
		}
	}
	return true
}

func fields(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.IsExported() && f.Tag.Get("json") != "-" && !yield(f) {
				return
			}
		}
	}
}
