package azuretest

import (
	"net/http"
	"net/http/httptest"
	"strings"
)

// NewFront stands before a server and changes what it answers, under another address, which it tells. Its
// certificate is the server's.
func NewFront(t TB, s *Server, change func(header http.Header, body string) (status int, changed string)) string {
	t.Helper()
	return listen(t, s.pair, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		behind := r.Clone(r.Context())
		behind.Host = s.address
		answer := httptest.NewRecorder()
		s.ServeHTTP(answer, behind)
		status, body := change(answer.Header(), answer.Body.String())
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(status)
		_, _ = strings.NewReader(body).WriteTo(w) // the other end may be gone
	}))
}
