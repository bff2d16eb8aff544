package azuretest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// route is an operation of one of the documents.
type route struct {
	method  string
	path    string // in the document
	form    *regexp.Regexp
	names   []string // of the groups of form
	arm     bool
	handler func(s *Server, c *call)
}

func newRoute(method, path string, arm bool, handler func(*Server, *call)) route {
	names := regexp.MustCompile(`\{([A-Za-z-]+)\}`).FindAllStringSubmatch(path, -1)
	form := regexp.QuoteMeta(path)
	r := route{method: method, path: path, arm: arm, handler: handler}
	for _, name := range names {
		r.names = append(r.names, name[1])
		value := `([^/]+)`
		if name[1] == "scope" {
			value = `(.+)`
		}
		form = strings.Replace(form, regexp.QuoteMeta(name[0]), value, 1)
	}
	prefix := "/v1.0"
	if arm {
		prefix = ""
	}
	r.form = regexp.MustCompile("^" + regexp.QuoteMeta(prefix) + form + "$")
	return r
}

// routes are all that the engine may use.
var routes = []route{
	newRoute("GET", "/applications", false, (*Server).listApplications),
	newRoute("POST", "/applications", false, (*Server).createApplication),
	newRoute("GET", "/applications/{application-id}", false, (*Server).getApplication),
	newRoute("DELETE", "/applications/{application-id}", false, (*Server).deleteApplication),
	newRoute("POST", "/applications/{application-id}/addPassword", false, (*Server).addPassword),
	newRoute("POST", "/applications/{application-id}/removePassword", false, (*Server).removePassword),
	newRoute("GET", "/applications/{application-id}/owners", false, (*Server).listOwners),
	newRoute("GET", "/servicePrincipals", false, (*Server).listPrincipals),
	newRoute("POST", "/servicePrincipals", false, (*Server).createPrincipal),
	newRoute("DELETE", "/servicePrincipals/{servicePrincipal-id}", false, (*Server).deletePrincipal),
	newRoute("GET", "/groups", false, (*Server).listGroups),
	newRoute("GET", "/groups/{group-id}", false, (*Server).getGroup),
	newRoute("POST", "/groups/{group-id}/members/$ref", false, (*Server).addMember),
	newRoute("DELETE", "/groups/{group-id}/members/{directoryObject-id}/$ref", false, (*Server).removeMember),
	newRoute("GET", "/directory/deletedItems/microsoft.graph.application", false, (*Server).listDeleted),
	newRoute("DELETE", "/directory/deletedItems/{directoryObject-id}", false, (*Server).purge),
	newRoute("GET", "/{scope}/providers/Microsoft.Authorization/roleAssignments", true, (*Server).listAssignments),
	newRoute("PUT", "/{scope}/providers/Microsoft.Authorization/roleAssignments/{roleAssignmentName}", true, (*Server).putAssignment),
	newRoute("DELETE", "/{scope}/providers/Microsoft.Authorization/roleAssignments/{roleAssignmentName}", true, (*Server).deleteAssignment),
	newRoute("GET", "/{scope}/providers/Microsoft.Authorization/roleDefinitions", true, (*Server).listDefinitions),
	newRoute("GET", "/{scope}/providers/Microsoft.Authorization/roleDefinitions/{roleDefinitionId}", true, (*Server).getDefinition),
}

// call is one request at work; the server's lock is held.
type call struct {
	w      http.ResponseWriter
	r      *http.Request
	values map[string]string
	who    *token
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.served++
	s.ahead += s.tick
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	s.mu.Unlock()
	op, serve := s.find(r)
	if serve == nil {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	var fault Fault
	if s.fail != nil {
		fault = s.fail(op)
	}
	s.mu.Unlock()
	if fault.Slow > 0 {
		time.Sleep(fault.Slow)
	}
	switch {
	case fault.Throttle:
		if fault.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(fault.RetryAfter))
		}
		refuse(w, http.StatusTooManyRequests, "TooManyRequests", "There are too many requests.")
	case fault.Before:
		refuse(w, http.StatusInternalServerError, "InternalServerError", "It failed.")
	case fault.After:
		serve(httptest.NewRecorder())
		refuse(w, http.StatusInternalServerError, "InternalServerError", "It failed.")
	case fault.Lost:
		serve(httptest.NewRecorder())
		panic(http.ErrAbortHandler) // so the connection ends
	default:
		serve(w)
	}
}

// find tells the operation, and what does it.
func (s *Server) find(r *http.Request) (op string, serve func(http.ResponseWriter)) {
	path := r.URL.EscapedPath()
	switch {
	case r.Method == http.MethodPost && path == "/"+s.Tenant+"/oauth2/v2.0/token":
		return "token", func(w http.ResponseWriter) { s.issueToken(w, r) }
	case r.Method == http.MethodHead && path == "/v1.0/":
		return "HEAD /", func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }
	case r.Method == http.MethodGet && strings.HasPrefix(path, s.Scope()+"/resourceGroups/") && strings.Count(path, "/") == 4:
		return "GET resource group", func(w http.ResponseWriter) { s.getResourceGroup(w, r) }
	case r.Method == http.MethodGet && path == "/adfs/.well-known/openid-configuration":
		return "GET login", s.describeLogin
	case r.Method == http.MethodGet && path == "/subscriptions":
		return "GET subscriptions", func(w http.ResponseWriter) { s.listSubscriptions(w, r) }
	}
	for _, one := range routes {
		match := one.form.FindStringSubmatch(path)
		if match == nil || one.method != r.Method {
			continue
		}
		values := map[string]string{}
		for i, name := range one.names {
			value, err := url.PathUnescape(match[i+1])
			if err != nil {
				return "", nil
			}
			values[name] = value
		}
		return r.Method + " " + one.path, func(w http.ResponseWriter) { s.serve(w, r, one, values) }
	}
	s.violate(r.Method + " " + path + " is no operation that is known here")
	return "", nil
}

func (s *Server) violate(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, text)
}

// serve does one operation, between the two checks.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, one route, values map[string]string) {
	document := contracts.graph
	if one.arm {
		document = contracts.arm
	}
	valid, err := check(r, document, one.path, values)
	if err != nil {
		s.violate("the request " + r.Method + " " + one.path + ": " + err.Error())
		refuse(w, http.StatusBadRequest, "Request_BadRequest", "It is not as documented.")
		return
	}
	answer := httptest.NewRecorder()
	s.mu.Lock()
	s.writing = r.Method != http.MethodGet
	who := s.caller(r, one.arm)
	if who == nil {
		refuse(answer, http.StatusUnauthorized, "InvalidAuthenticationToken", "The token is not valid.")
	} else {
		one.handler(s, &call{w: answer, r: r, values: values, who: who})
	}
	s.writing = false
	s.mu.Unlock()
	if err := valid.response(answer.Code, answer.Header(), answer.Body.String()); err != nil {
		s.violate("the response to " + r.Method + " " + one.path + ": " + err.Error())
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the other end may be gone
}

// caller is who sends a request; nil where the token is of no use.
func (s *Server) caller(r *http.Request, arm bool) *token {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	who := s.directory.tokens[text]
	audience := graphAudience
	if arm {
		audience = armAudience
	}
	if !ok || who == nil || who.audience != audience || !s.now().Before(who.ends) {
		return nil
	}
	return who
}

// may refuses a request that the caller's application permissions do not allow; owner is one who may with
// Application.ReadWrite.OwnedBy.
func (c *call) may(owner bool, enough ...string) bool {
	for _, p := range c.who.permissions {
		if slices.Contains(enough, p) || owner && p == "Application.ReadWrite.OwnedBy" {
			return true
		}
	}
	c.refuse(http.StatusForbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
	return false
}

// mayAt refuses a request that the caller's role assignments do not allow.
func (s *Server) mayAt(c *call, action string) bool {
	if s.directory.allowed(c.who.principal, "/"+c.values["scope"], action) {
		return true
	}
	c.refuse(http.StatusForbidden, "AuthorizationFailed", "The client does not have authorization to perform action '"+action+"'.")
	return false
}

func (c *call) refuse(status int, code, message string) { refuse(c.w, status, code, message) }

func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, map[string]any{"error": map[string]any{"code": code, "message": message}})
}

func (c *call) answer(status int, document any) { answer(c.w, status, document) }

func answer(w http.ResponseWriter, status int, document any) {
	if document == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document) // the other end may be gone
}

// read decodes the body, which was found as documented.
func (c *call) read(into any) bool {
	if err := json.NewDecoder(c.r.Body).Decode(into); err != nil {
		c.refuse(http.StatusBadRequest, "Request_BadRequest", "The body cannot be read.")
		return false
	}
	return true
}

const pageSize = 3

// page answers a part of a list, in the order of their ids, with a link to the next.
func (c *call) page(items []map[string]any, link string) {
	slices.SortFunc(items, func(a, b map[string]any) int { return strings.Compare(a["id"].(string), b["id"].(string)) })
	from := 0
	if after := c.r.URL.Query().Get("$skiptoken"); after != "" {
		for from < len(items) && items[from]["id"].(string) <= after {
			from++
		}
	}
	items = items[from:]
	document := map[string]any{}
	if len(items) > pageSize {
		items = items[:pageSize]
		query := c.r.URL.Query()
		query.Set("$skiptoken", items[pageSize-1]["id"].(string))
		document[link] = "https://" + c.r.Host + c.r.URL.EscapedPath() + "?" + query.Encode()
	}
	if items == nil {
		items = []map[string]any{}
	}
	document["value"] = items
	c.answer(http.StatusOK, document)
}

// filtered is the text that a filter of the form "<field> eq '<text>'" wants; ok is false without a filter.
func (c *call) filtered(field string) (text string, ok bool) {
	filter := c.r.URL.Query().Get("$filter")
	rest, found := strings.CutPrefix(filter, field+" eq '")
	if !found || !strings.HasSuffix(rest, "'") {
		return "", false
	}
	return strings.ReplaceAll(rest[:len(rest)-1], "''", "'"), true
}
