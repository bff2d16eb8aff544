package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/strictjson"
)

const (
	maxBody        = 1 << 20
	maxPublicBody  = 16 << 10         // of who has no token: client credentials are far smaller
	defaultTimeout = 20 * time.Second // operation_timeout's default + 5 s
	waitMargin     = 5 * time.Second
)

// call is one request on its way through an operation. Handlers use nothing else.
type call struct {
	ctx    context.Context // ends with the caller's connection or at the time limit
	server *Server
	caller *access.Caller // nil for public operations
	origin access.Origin
	route  *route
	w      *response
	r      *http.Request
	sent   []byte         // the whole body
	values map[string]any // query parameters by name
	status int
	limit  *time.Timer
	waits  bool // longer than it would unasked, which is counted
}

// path is a path parameter, decoded. It may hold anything printable: the operation checks it.
func (c *call) path(name string) string {
	v := c.r.PathValue(name)
	if _, verb := c.route.split(); verb != "" {
		v = strings.TrimSuffix(v, ":"+verb)
	}
	return v
}

// text, flag, number and moment are query parameters; the zero value when absent.
func (c *call) text(name string) string { return value[string](c, name) }
func (c *call) flag(name string) bool   { return value[bool](c, name) }
func (c *call) number(name string) int  { return value[int](c, name) }

// given is a query parameter as a pointer: nil when absent.
func given[T any](c *call, name string) *T {
	v, ok := c.values[name].(T)
	if !ok {
		return nil
	}
	return &v
}

func value[T any](c *call, name string) T {
	v, _ := c.values[name].(T)
	return v
}

func (c *call) moment(name string) *time.Time { return given[time.Time](c, name) }

// wait is how long to wait for work to be done: no longer than unasked when many wait long already,
// so that waiting cannot take every place in flight. The call's time limit moves with it.
func (c *call) wait(absent time.Duration) time.Duration {
	d := absent
	if asked := given[time.Duration](c, "wait"); asked != nil {
		d = *asked
	}
	if d > absent && !c.waits {
		if c.waits = c.server.beginWait(); !c.waits {
			d = absent
		}
	}
	c.extend(max(d+waitMargin, c.route.limit()))
	return d
}

// endWait gives the place of a long wait back.
func (c *call) endWait() {
	if c.waits {
		c.server.endWait()
	}
}

// page is the page of a list that was asked for.
func (c *call) page() page.Request {
	return page.Request{Limit: c.number("limit"), Cursor: c.text("cursor")}
}

// accepted makes the answer 202: the work goes on, the answer is the object's present state.
func (c *call) accepted() { c.status = http.StatusAccepted }

// created makes the answer 201, for a PUT that made what it names.
func (c *call) created() { c.status = http.StatusCreated }

// extend gives the call this much time from now on, at the handler and on the connection, whose
// read deadline would otherwise look like a caller who has gone.
func (c *call) extend(d time.Duration) {
	c.limit.Reset(d)
	control := http.NewResponseController(c.w)
	end := time.Now().Add(d + waitMargin)
	// HTTP/2 streams and recorders of tests may have no deadline to move: the handler's holds.
	_ = control.SetReadDeadline(end)
	_ = control.SetWriteDeadline(end)
}

// onUndelivered is called once, before the call ends, when the answer could not be given: the
// caller was gone before its first byte, or writing it failed.
func (c *call) onUndelivered(f func()) { c.w.undelivered = f }

// decode reads the JSON body strictly.
func (c *call) decode(into any) error {
	data, err := c.body(typeJSON)
	if err != nil {
		return err
	}
	if len(data) == 0 && c.route.optional {
		data = []byte("{}")
	}
	return strictjson.Decode(data, into)
}

// noBody makes sure that the caller did not send what nobody would read.
func (c *call) noBody() error {
	data, err := c.body(typeJSON)
	if err != nil || len(data) == 0 {
		return err
	}
	return strictjson.Decode(data, &none{})
}

// form reads a form body strictly: no field twice, none but the known ones.
func (c *call) form(known ...string) (url.Values, error) {
	data, err := c.body(typeForm)
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(string(data))
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, "read the form: it is not well escaped")
	}
	for name, texts := range values {
		if len(texts) != 1 {
			return nil, fault.New(fault.InvalidRequest, "read the form: field %s is given %d times", quote(name), len(texts))
		}
		if !contains(known, name) {
			return nil, fault.New(fault.InvalidRequest, "read the form: field %s is not known here", quote(name))
		}
	}
	return values, nil
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// receive reads the body to its end. What was read of one that broke off is no request: acting on
// half of it would be acting on defaults.
func (c *call) receive() ([]byte, error) {
	most := int64(maxBody)
	if c.route.public {
		most = maxPublicBody
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, most))
	var big *http.MaxBytesError
	switch {
	case err == nil:
		return data, nil
	case errors.As(err, &big):
		return nil, fault.New(fault.InvalidRequest, "read the request body: it is larger than %d KiB", most>>10).Because(err)
	default:
		return nil, fault.New(fault.InvalidRequest, "read the request body: it ended early or is broken").Because(err)
	}
}

// body is what was sent, if it is of the type. An empty one needs no content type.
func (c *call) body(want string) ([]byte, error) {
	data := c.sent
	if len(data) == 0 {
		return nil, nil
	}
	types, encodings := c.r.Header["Content-Type"], c.r.Header["Content-Encoding"]
	if len(encodings) > 0 {
		return nil, fault.New(fault.UnsupportedMediaType, "read the request body: send it without a content encoding")
	}
	if len(types) != 1 || !isType(types[0], want) {
		return nil, fault.New(fault.UnsupportedMediaType, "read the request body: send it with content type %s", want)
	}
	return data, nil
}

// isType tells whether the header names the type, in UTF-8 if it names a character set.
func isType(header, want string) bool {
	name, params, err := mime.ParseMediaType(header)
	if err != nil || name != want {
		return false
	}
	for k, v := range params {
		if k != "charset" || !strings.EqualFold(v, "utf-8") {
			return false
		}
	}
	return true
}

// json answers with a document.
func (c *call) json(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fault.New(fault.InternalError, "write the answer: internal error").Because(err)
	}
	return c.write(append(body, '\n'))
}

// empty answers 204, or 202 where the operation accepted.
func (c *call) empty() error {
	if c.status == 0 {
		c.status = http.StatusNoContent
	}
	c.w.send(c.ctx, c.status, "", nil)
	return nil
}

func (c *call) write(body []byte) error {
	if c.status == 0 {
		c.status = c.route.status
	}
	c.w.send(c.ctx, c.status, c.route.produces, body)
	return nil
}
