package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
)

// resource is all operations on one pattern of the mux. It chooses by method and verb, so that a
// known path with a wrong method is answered in our envelope.
type resource struct {
	server *Server
	routes []route
}

// mount registers every route below /v1 and, for callers of several tenants, below /v1/t/{tenant_id}.
func (s *Server) mount(mux *http.ServeMux, routes []route) {
	byPattern := map[string]*resource{}
	for _, rt := range routes {
		pattern, _ := rt.split()
		if byPattern[pattern] == nil {
			byPattern[pattern] = &resource{server: s}
		}
		byPattern[pattern].routes = append(byPattern[pattern].routes, rt)
	}
	for pattern, res := range byPattern {
		methods := []string{""}
		if within(pattern, byPattern) {
			// The other methods belong to the more general pattern: GET /secrets/batch reads
			// the secret of that name.
			methods = res.methods("")
		}
		for _, m := range methods {
			if m != "" {
				m += " "
			}
			mux.Handle(m+"/v1"+pattern, res)
			mux.Handle(m+"/v1/t/{tenant_id}"+pattern, res)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.(*response).fail(fault.New(fault.NotFound, "find the operation: there is none at this path"))
	})
}

// within tells whether a more general pattern takes every path of this one.
func within(pattern string, all map[string]*resource) bool {
	for other := range all {
		prefix, rest, ok := strings.Cut(other, "{")
		if ok && strings.HasSuffix(rest, "...}") && other != pattern && strings.HasPrefix(pattern, prefix) &&
			!strings.Contains(rest, "/") {
			return true
		}
	}
	return false
}

// methods are those the resource knows under a verb, in order.
func (res *resource) methods(verb string) []string {
	var all []string
	for _, rt := range res.routes {
		if _, v := rt.split(); v == verb {
			all = append(all, rt.method)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// verb is what follows the colon of the path, which no other part of a path may hold.
func verb(r *http.Request) string {
	at := strings.LastIndexByte(r.URL.Path, ':')
	if at < 0 || strings.IndexByte(r.URL.Path[at:], '/') >= 0 {
		return ""
	}
	return r.URL.Path[at+1:]
}

func (res *resource) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := rw.(*response)
	v := verb(r)
	methods := res.methods(v)
	if len(methods) == 0 && v != "" && len(res.methods("")) > 0 {
		if len(res.methods("")) == len(res.routes) {
			methods, v = res.methods(""), "" // the resource has no verbs: the colon is its operation's business
		}
	}
	if len(methods) == 0 {
		w.fail(fault.New(fault.NotFound, "find the operation: there is none at this path"))
		return
	}
	for i := range res.routes {
		rt := &res.routes[i]
		if _, has := rt.split(); rt.method == r.Method && has == v {
			res.server.run(rt, w, r)
			return
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	w.fail(fault.New(fault.MethodNotAllowed, "find the operation: this path knows %s", strings.Join(methods, ", ")))
}

// run carries out one operation: caller, body, a place among those in flight, handler.
func (s *Server) run(rt *route, w *response, r *http.Request) {
	w.route = rt
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	c := &call{ctx: ctx, server: s, origin: w.origin, route: rt, w: w, r: r}
	c.limit = time.AfterFunc(rt.limit(), func() { cancel(context.DeadlineExceeded) })
	defer c.limit.Stop()

	if err := c.arrive(); err != nil {
		w.fail(err)
		return
	}
	if !rt.exempt {
		if !s.enter() {
			w.fail(fault.New(fault.ServiceUnavailable, "take the request: the server is busy or stopping; try again"))
			return
		}
		defer s.leave()
	}
	defer c.endWait()
	if rt.limit() > defaultTimeout {
		c.extend(rt.limit()) // the connection's deadlines would end it sooner
	}
	if err := c.carryOut(); err != nil {
		w.fail(err)
	}
}

func (rt *route) limit() time.Duration {
	if rt.timeout == 0 {
		return defaultTimeout
	}
	return rt.timeout
}

// arrive finds the caller and takes the whole request in. It comes before the place in flight: who
// sends slowly, or nothing after the head, keeps nobody out but on their own connection.
func (c *call) arrive() (err error) {
	if !c.route.public {
		if c.caller, err = c.server.authenticate(c); err != nil {
			return err
		}
		c.w.caller = c.caller
	}
	c.sent, err = c.receive()
	return err
}

func (c *call) carryOut() (err error) {
	if c.values, err = readQuery(c.r.URL.RawQuery, c.route.params); err != nil {
		return err
	}
	return c.route.handle(c)
}

// authenticate finds the caller and the tenant that the request is for: the path's, else the
// header's, else the token's own.
func (s *Server) authenticate(c *call) (*access.Caller, error) {
	bearer, err := bearer(c.r.Header["Authorization"])
	if err != nil {
		return nil, err
	}
	tenant := c.r.PathValue("tenant_id")
	if named := c.r.Header["X-Tenant-Id"]; tenant == "" && len(named) > 0 {
		if len(named) > 1 || named[0] == "" || !printable(named[0]) {
			return nil, fault.New(fault.InvalidRequest, "read the tenant: send one X-Tenant-ID header")
		}
		tenant = named[0]
	}
	return s.door.Authenticate(c.ctx, bearer, tenant, c.origin)
}

// bearer is the token of the one Authorization header, "" when there is none or it is of another
// scheme. Two headers could be two callers to two readers of the request.
func bearer(headers []string) (string, error) {
	if len(headers) > 1 {
		return "", fault.New(fault.InvalidRequest, "read the token: send exactly one Authorization header")
	}
	if len(headers) == 0 {
		return "", nil
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return token, nil
}
