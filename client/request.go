package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
)

// maxWait is the longest Retry-After that is waited for; a longer one is the
// caller's to decide about.
const maxWait = 30 * time.Second

// request is one call. Its path segments are escaped here and nowhere else.
type request struct {
	method     string
	path       []string // below /v1; none may be empty
	verb       string   // ":versions" behind the path
	query      url.Values
	body       any // JSON; url.Values are sent as a form
	idempotent bool
	anonymous  bool          // without the token
	accept     int           // a status besides 2xx that is an answer, not an error
	held       string        // entity tag of the copy that the caller holds
	wait       time.Duration // how long the server was asked to wait
	most       int           // bytes of the answer, where it may be larger than others
}

// do sends a request, again where that is safe, and decodes the answer into
// into, unless it is nil or the answer has no body.
func (c *Client) do(ctx context.Context, r request, into any) (status int, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout+r.wait)
		defer cancel()
	}
	target, err := c.target(r)
	if err != nil {
		return 0, err
	}
	body, contentType, err := encode(r.body)
	if err != nil {
		return 0, err
	}
	refreshed := false
	for attempt := 0; ; attempt++ {
		status, err = c.send(ctx, r, target, body, contentType, into)
		var refused *Error
		if !errors.As(err, &refused) {
			return status, err
		}
		if refused.Status == http.StatusUnauthorized && !r.anonymous && !refreshed && c.token.renewable() {
			refreshed = true
			c.token.forget()
			continue
		}
		busy := refused.Status == http.StatusTooManyRequests || refused.Status == http.StatusServiceUnavailable
		if !r.idempotent || !busy || attempt >= c.retries || refused.RetryAfter > maxWait {
			return status, err
		}
		if !slept(ctx, max(refused.RetryAfter, backoff(attempt))) {
			return status, err
		}
	}
}

func (c *Client) target(r request) (string, error) {
	var b strings.Builder
	b.WriteString(c.base)
	b.WriteString("/v1")
	for _, segment := range r.path {
		if segment == "" || segment == "." || segment == ".." {
			return "", &Error{Code: InvalidPath, Message: "a name or a segment of a path is missing"}
		}
		b.WriteByte('/')
		b.WriteString(url.PathEscape(segment))
	}
	b.WriteString(r.verb)
	if len(r.query) > 0 {
		b.WriteByte('?')
		b.WriteString(r.query.Encode())
	}
	return b.String(), nil
}

func encode(body any) (data []byte, contentType string, err error) {
	switch b := body.(type) {
	case nil:
		return nil, "", nil
	case url.Values:
		return []byte(b.Encode()), "application/x-www-form-urlencoded", nil
	default:
		data, err = json.Marshal(b)
		if err != nil {
			return nil, "", fmt.Errorf("encode the request: %w", err)
		}
		return data, "application/json", nil
	}
}

// send makes one attempt.
func (c *Client) send(ctx context.Context, r request, target string, body []byte, contentType string, into any) (int, error) {
	hr, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("make the request: %w", err)
	}
	hr.Header.Set("Accept", "application/json")
	hr.Header.Set("User-Agent", c.userAgent)
	if contentType != "" {
		hr.Header.Set("Content-Type", contentType)
	}
	if r.held != "" {
		hr.Header.Set("If-None-Match", r.held)
	}
	if c.tenant != "" {
		hr.Header.Set("X-Tenant-ID", c.tenant)
	}
	if !r.anonymous {
		token, err := c.token.token(ctx)
		if err != nil {
			return 0, err
		}
		if token != "" {
			hr.Header.Set("Authorization", "Bearer "+token)
		}
	}
	answer, err := c.http.Do(hr)
	if err != nil {
		return 0, fmt.Errorf("reach the server: %w", err)
	}
	defer answer.Body.Close()
	limit := maxAnswer
	if r.most > 0 {
		limit = r.most
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, int64(limit)+1))
	switch {
	case err != nil:
		return answer.StatusCode, fmt.Errorf("read the answer: %w", err)
	case len(data) > limit:
		return answer.StatusCode, fmt.Errorf("read the answer: it is larger than %d bytes", limit)
	case (answer.StatusCode < 200 || answer.StatusCode > 299) && answer.StatusCode != r.accept:
		return answer.StatusCode, errorOf(answer, data)
	case into == nil || len(data) == 0:
		return answer.StatusCode, nil
	}
	return answer.StatusCode, decode(answer, data, into)
}

// get reads one object.
func get[T any](ctx context.Context, c *Client, query url.Values, path ...string) (T, error) {
	var v T
	_, err := c.do(ctx, request{method: http.MethodGet, path: path, query: query, idempotent: true}, &v)
	return v, err
}

// list walks through all pages of a list. A sequence ends after its first error.
func list[Document, Item any](ctx context.Context, c *Client, query url.Values, path []string, page func(*Document) ([]Item, api.Page)) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		q := url.Values{}
		for name, values := range query {
			q[name] = values
		}
		for {
			document, err := get[Document](ctx, c, q, path...)
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			items, p := page(&document)
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if !p.HasMore || p.Cursor == nil || *p.Cursor == q.Get("cursor") {
				return
			}
			q.Set("cursor", *p.Cursor)
		}
	}
}

// Collect reads a sequence to its end, or to its first error.
func Collect[T any](items iter.Seq2[T, error]) ([]T, error) {
	all := []T{}
	for item, err := range items {
		if err != nil {
			return all, err
		}
		all = append(all, item)
	}
	return all, nil
}

// query sets what is not empty.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func flag(on bool) string {
	if on {
		return "true"
	}
	return ""
}

func seconds(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return strconv.FormatInt(int64(max(d, time.Second)/time.Second), 10) + "s"
}

// backoff doubles from 200 ms to 10 s; a random half of it keeps many clients
// from coming back together.
func backoff(attempt int) time.Duration {
	d := min(200*time.Millisecond<<min(attempt, 10), 10*time.Second)
	return d/2 + rand.N(d/2) //nolint:gosec // a wait is no secret
}

// slept waits, and answers whether it could before the context ended.
func slept(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
