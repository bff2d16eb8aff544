package e2e_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sync/atomic"
	"testing"
)

// relay stands before a source that speaks HTTP, over TLS of its own, and remembers the secrets that go through
// it, either way.
type relay struct {
	url, ca string
	state   atomic.Int32
}

// The states of a relay.
const (
	passes int32 = iota
	echoes       // every request is answered with 500, and all that was sent stands in the answer
	gone         // every connection is cut
)

// newRelay starts one; the source behind it is for the caller to name when it is there.
func newRelay(t *testing.T, v *vault) (r *relay, lead func(source string)) {
	t.Helper()
	var source atomic.Pointer[url.URL]
	forward := &httputil.ReverseProxy{
		Rewrite: func(q *httputil.ProxyRequest) { // the host that was signed stays
			q.Out.URL.Scheme, q.Out.URL.Host = source.Load().Scheme, source.Load().Host
		},
		Transport:      &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		ErrorLog:       log.New(io.Discard, "", 0),
		ModifyResponse: func(a *http.Response) error { return overhear(v, &a.Body) },
	}
	r = &relay{}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if err := overhear(v, &q.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		switch r.state.Load() {
		case echoes:
			sent, err := httputil.DumpRequest(q, true)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("X-Echo", q.Header.Get("Authorization"))
			w.WriteHeader(http.StatusInternalServerError)
			_ = json.NewEncoder(w).Encode(map[string]any{
				"error": map[string]any{"code": "InternalServerError", "status": string(sent), "message": string(sent)}, "error_description": string(sent), "sent": string(sent),
			}) // who has gone needs no answer
		case gone:
			panic(http.ErrAbortHandler)
		default:
			forward.ServeHTTP(w, q)
		}
	}))
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	t.Cleanup(front.Close)
	r.url = front.URL
	r.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	return r, func(at string) {
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		source.Store(u)
	}
}

// hidden are the secrets of the messages of all sources: of a form, of JSON, of XML.
var hidden = regexp.MustCompile(`(?:client_secret|assertion)=([^&\s]+)` +
	`|"(?:access_token|accessToken|secretText|privateKeyData|token)": ?"([^"]{12,})"` +
	`|<(?:SecretAccessKey|SessionToken)>([^<]+)<`)

// overhear remembers the secrets of a body, and puts it back.
func overhear(v *vault, body *io.ReadCloser) error {
	text, err := io.ReadAll(*body)
	if err != nil {
		return err
	}
	*body = io.NopCloser(bytes.NewReader(text))
	for _, found := range hidden.FindAllStringSubmatch(string(text), -1) {
		for _, secret := range found[1:] {
			if plain, err := url.QueryUnescape(secret); err == nil && plain != secret {
				v.remember(plain)
			}
			if secret != "" {
				v.remember(secret)
			}
		}
	}
	return nil
}
