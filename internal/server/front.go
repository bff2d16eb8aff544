package server

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
)

// maxPath is in bytes: the longest secret path of 512, with room for what surrounds it.
const maxPath = 1024

// front stands before the mux. What net/http would clean, redirect or pass on, and another reader
// of the same bytes could understand differently, is refused here.
type front struct {
	server *Server
	next   http.Handler
}

func (f *front) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: rw, logger: f.server.logger, origin: originOf(r)}
	h := w.Header()
	h.Set("X-Request-ID", w.origin.RequestID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	defer f.finish(w)

	if len(r.TransferEncoding) > 0 {
		// What follows a chunked body on this connection is never read as a second request.
		h.Set("Connection", "close")
	}
	if err := check(r); err != nil {
		h.Set("Connection", "close")
		w.fail(err)
		return
	}
	f.next.ServeHTTP(w, r)
}

// finish recovers from a panic, without its values, which may be secrets, and writes the line of
// the access log.
func (f *front) finish(w *response) {
	if p := recover(); p != nil {
		w.logger.Error("request panicked", "request_id", w.origin.RequestID, "at", frames())
		if w.status != 0 {
			panic(http.ErrAbortHandler)
		}
		w.fail(fault.New(fault.InternalError, "an internal error occurred; the log of the server has it under this request id"))
	}
	took := time.Since(w.origin.Start)
	category, method := "none", "other"
	if w.route != nil {
		category, method = w.route.category(), w.route.method
	}
	f.server.metrics.Request(method, category, w.status, took)
	w.logger.Info("request", "request_id", w.origin.RequestID, "method", method, "path_category", category,
		"status", w.status, "code", string(w.code), "identity", w.identity(),
		"source_ip", w.origin.SourceIP.String(), "duration_ms", took.Milliseconds())
}

// frames names the functions of a panic; their arguments are left out.
func frames() []string {
	pcs := make([]uintptr, 24)
	walk := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var at []string
	for {
		f, more := walk.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") {
			at = append(at, f.Function)
		}
		if !more {
			return at
		}
	}
}

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func originOf(r *http.Request) access.Origin {
	o := access.Origin{Start: time.Now()}
	if given := r.Header["X-Request-Id"]; len(given) == 1 && requestID.MatchString(given[0]) {
		o.RequestID = given[0]
	} else {
		o.RequestID = ident.New(ident.Request)
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		o.SourceIP = peer.Addr().Unmap().WithZone("")
	}
	if agent := r.UserAgent(); printable(agent) {
		o.UserAgent = agent[:min(len(agent), 256)]
		for !utf8.ValidString(o.UserAgent) {
			o.UserAgent = o.UserAgent[:len(o.UserAgent)-1]
		}
	}
	return o
}

// check refuses requests that are not said in the one way that has one meaning.
func check(r *http.Request) error {
	if problem := wireProblem(r.Context()); problem != "" {
		return fault.New(fault.InvalidRequest, "read the request: %s", problem)
	}
	if !(r.ProtoMajor == 1 && r.ProtoMinor == 1) && r.ProtoMajor != 2 {
		return fault.New(fault.InvalidRequest, "read the request: speak HTTP/1.1 or HTTP/2")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		return fault.New(fault.InvalidRequest, "read the request: method %s is not known", quote(r.Method))
	}
	if len(r.Header["Authorization"]) > 1 {
		return fault.New(fault.InvalidRequest, "read the request: send exactly one Authorization header")
	}
	raw, query, _ := strings.Cut(r.RequestURI, "?")
	if err := checkPath(raw); err != nil {
		return err
	}
	if _, err := url.ParseQuery(query); err != nil {
		return fault.New(fault.InvalidRequest, "read the query: it is not well escaped")
	}
	return nil
}

// checkPath accepts a path as it stands in the request line only in the form in which we would
// print it, but for %3A, since many clients escape the colon of a verb, and for the slashes of an
// assignment's secret path.
func checkPath(raw string) error {
	if len(raw) > maxPath {
		return invalidPath("it is longer than 1024 bytes")
	}
	if !strings.HasPrefix(raw, "/") {
		return invalidPath("it does not begin with a slash")
	}
	path, err := url.PathUnescape(raw)
	if err != nil {
		return invalidPath("it is not well escaped")
	}
	if !printable(path) || strings.ContainsAny(path, "\\ ") {
		return invalidPath("it holds characters that no name has")
	}
	if (&url.URL{Path: path}).EscapedPath() != strings.ReplaceAll(unescapeSecretPath(raw), "%3A", ":") {
		return invalidPath("it is not in its canonical escaped form")
	}
	if path == "/" {
		return nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return invalidPath("it has an empty segment, or one of dots")
		}
	}
	return nil
}

// assignment is where a rotation policy's secrets stand in a path. There the slashes of a secret's
// path may be escaped: many clients escape whatever they put into a path.
var assignment = regexp.MustCompile(`^/v1/(t/[^/]+/)?rotation/policies/[^/]+/secrets/`)

func unescapeSecretPath(raw string) string {
	end := len(assignment.FindString(raw))
	if end == 0 {
		return raw
	}
	return raw[:end] + strings.ReplaceAll(raw[end:], "%2F", "/")
}

func invalidPath(reason string) error {
	return fault.New(fault.InvalidPath, "read the path: %s", reason)
}
