package azure

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

const (
	maxAnswer = 8 << 20 // bytes of one page
	maxPages  = 10_000

	defaultRetryAfter = time.Second // where Azure throttles and does not say for how long
	firstPause        = 200 * time.Millisecond
	longestPause      = 3 * time.Second
)

// client speaks with the three services. It is safe for concurrent use.
type client struct {
	http  *http.Client
	cloud cloud
	login string        // where tokens are asked for
	slots chan struct{} // one token per request under way

	mu   sync.Mutex
	root root
	done bool
}

func newClient(c *config, o engine.Options, trust *tls.Config) *client {
	return &client{
		http: engine.HTTPClient(o, trust, *c.MaxOpenConnections), cloud: c.cloud,
		login: c.cloud.login + "/" + c.TenantID + "/oauth2/v2.0/token", slots: make(chan struct{}, *c.MaxOpenConnections),
	}
}

func (c *client) close() {
	c.mu.Lock()
	c.done = true
	c.mu.Unlock()
	c.http.CloseIdleConnections()
}

// become makes the client send what it sends from now on as this root.
func (c *client) become(r root) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.root = r
}

func (c *client) present() (root, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return c.root, unreachable("use the source: the engine is closed", nil)
	}
	return c.root, nil
}

// dropTokens makes the next request ask for a new token.
func (c *client) dropTokens() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.root.tokens.drop()
}

// service is one of the two that are told what to do.
type service int

const (
	graph service = iota
	arm
)

// request is one message to a service.
type request struct {
	attempt string // what is attempted: begins the reason of an error
	to      service
	method  string
	path    string // escaped, with its query
	body    any    // nil for none
	grant   string // what root needs for it
}

// at adds a query, as names and values, to an escaped path.
func at(path string, query ...string) string {
	values := make(url.Values)
	for i := 0; i+1 < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	if len(values) == 0 {
		return path
	}
	return path + "?" + strings.ReplaceAll(values.Encode(), "+", "%20")
}

// quoted is a text of OData.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// do sends a request and reads its answer into out, nil for none. It waits where the service asks for
// patience, as long as the context allows it, since a request that is throttled was not executed. A
// request that changes nothing, or that comes to the same when it is repeated, is sent again once when
// no answer came. The error is an *answer where the service answered.
func (c *client) do(ctx context.Context, q request, out any) error {
	repeated := false
	for {
		err := c.once(ctx, q, out)
		var a *answer
		switch {
		case err == nil:
			return nil
		case errors.As(err, &a) && a.throttled():
			if !engine.Wait(ctx, a.retryAfter) {
				return busy(q.attempt+": Azure asks to wait "+a.retryAfter.Round(time.Second).String()+": it has had too many requests", err)
			}
		case errors.As(err, &a) && a.status == http.StatusUnauthorized && !repeated: // nothing was executed
			repeated = true
			c.dropTokens()
		case !errors.As(err, &a) && !repeated && ctx.Err() == nil && q.method != http.MethodPost && engine.KindOf(err) != engine.Misconfigured:
			repeated = true
		default:
			return err
		}
	}
}

// eventually repeats what fails because Azure does not know everywhere yet what was made or deleted,
// until it succeeds, fails for another reason, or the time is over.
func eventually(ctx context.Context, attempt func() error, early func(error) bool) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := attempt()
		if err == nil || !early(err) || !engine.Wait(ctx, pause) {
			return err
		}
	}
}

func (c *client) once(ctx context.Context, q request, out any) error {
	r, err := c.present()
	if err != nil {
		return err
	}
	endpoint, scope := c.cloud.graph, c.cloud.graphScope
	if q.to == arm {
		endpoint, scope = c.cloud.arm, c.cloud.armScope
	}
	token, err := c.token(ctx, r, scope)
	if err != nil {
		return err
	}
	var body io.Reader
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return misconfigured(q.attempt, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, endpoint+q.path, body)
	if err != nil {
		return misconfigured(q.attempt+": its path cannot be sent", err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.exchange(req, q, out)
}

// exchange sends one message and reads the answer. What fails before anything was written is Unreachable;
// after it, a message that may have changed something is Uncertain.
func (c *client) exchange(req *http.Request, q request, out any) error {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-req.Context().Done():
		return busy(q.attempt+": wait for a connection: all are in use", req.Context().Err())
	}
	var sent atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
		// WroteRequest comes before the buffer is flushed: a kill there would send nothing.
		GotFirstResponseByte: func() { failpoint.Sent(req.Context()) },
	})
	response, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		return lost(q, sent.Load(), err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return lost(q, true, err)
	case len(text) > maxAnswer:
		return lost(q, true, errors.New("the answer is larger than 8 MiB"))
	case response.StatusCode < 200 || response.StatusCode > 299:
		return newAnswer(q, response, text)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return lost(q, true, errors.New("the answer is not what the service documents"))
	}
	return nil
}

// page is one part of a list; the two services name the next one differently.
type page[T any] struct {
	Value []T    `json:"value"`
	Graph string `json:"@odata.nextLink"`
	ARM   string `json:"nextLink"`
}

// list reads all pages. A link to the next is followed only within the service: it is sent the token.
func list[T any](ctx context.Context, c *client, q request) (all []T, err error) {
	endpoint := c.cloud.graph
	if q.to == arm {
		endpoint = c.cloud.arm
	}
	q.method = http.MethodGet
	for range maxPages {
		var p page[T]
		if err := c.do(ctx, q, &p); err != nil {
			return nil, err
		}
		all = append(all, p.Value...)
		next := p.Graph + p.ARM
		if next == "" {
			return all, nil
		}
		path, within := strings.CutPrefix(next, endpoint+"/")
		if !within {
			return nil, misconfigured(q.attempt+": the list goes on at another address than the service's", nil)
		}
		q.path = "/" + path
	}
	return nil, misconfigured(q.attempt+": the list has no end", nil)
}

// now is the time at Microsoft Graph, to the second. It tells anybody.
func (c *client) now(ctx context.Context) (at time.Time, err error) {
	q := request{attempt: "ask what time it is", method: http.MethodGet}
	for range 2 { // a connection that has rested may have ended
		var req *http.Request
		var response *http.Response
		if req, err = http.NewRequestWithContext(ctx, http.MethodHead, c.cloud.graph+"/v1.0/", http.NoBody); err != nil {
			return at, misconfigured(q.attempt, err)
		}
		if response, err = c.http.Do(req); err == nil {
			_ = response.Body.Close()
			if at, err = http.ParseTime(response.Header.Get("Date")); err != nil {
				err = refused(q.attempt + ": Microsoft Graph does not say")
			}
			return at, err
		}
	}
	return at, lost(q, true, err)
}

// retryAfter reads the header that tells for how long to wait, in seconds or as a moment.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return max(time.Duration(seconds)*time.Second, firstPause)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), firstPause)
	}
	return defaultRetryAfter
}
