package script

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
)

// Limits of what a script does over HTTP.
const (
	maxRequests     = 64 // of one call
	maxRequestBody  = 256 << 10
	maxResponseBody = 1 << 20
	maxHeaders      = 64
)

// request is one HTTP exchange of a script.
func (c *call) request(ctx context.Context, w wish) (reply, error) {
	if c.requests++; c.requests > maxRequests {
		return c.refuse(CodeRequests, "a call can make at most 64 requests")
	}
	target, err := url.Parse(w.URL)
	if err != nil || target.Host == "" || target.User != nil || target.Opaque != "" {
		return c.refuse(CodeHost, "the URL is not of the form https://host/path")
	}
	if !slices.Contains(c.runner.Hosts, hostOf(target)) {
		return c.refuse(CodeHost, "the scheme and host of the URL are not among the engine's http_hosts")
	}
	request, err := c.build(ctx, w, target)
	if err != nil {
		return c.refuse(CodeHTTP, err.Error())
	}
	question := w.Method == http.MethodGet || w.Method == http.MethodHead
	answer, err := c.runner.Client.Do(request)
	code := codeOf(err)
	if code == "" || code == CodeHTTP { // it may have arrived
		c.changed = c.changed || !question
	}
	if err != nil {
		return c.refuse(code, saying(err))
	}
	defer answer.Body.Close()
	if !question {
		failpoint.Sent(ctx)
		defer c.betweenTwo()
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxResponseBody+1))
	switch {
	case err != nil:
		return c.refuse(CodeHTTP, "the answer broke off")
	case len(body) > maxResponseBody:
		return c.refuse(CodeHTTP, "the answer is longer than 1 MiB")
	}
	headers := map[string]string{}
	for name, values := range answer.Header {
		headers[strings.ToLower(name)] = values[0]
	}
	return reply{Response: &response{Status: answer.StatusCode, Headers: headers, Body: body}}, nil
}

// betweenTwo is a moment at which something is done at the source, and more is to come.
func (c *call) betweenTwo() {
	switch c.function {
	case Issue:
		failpoint.Hit(failpoint.F4)
	case Revoke:
		failpoint.Hit(failpoint.Disabled)
	}
}

// build makes the request. The secrets that stand in it are known from here on.
func (c *call) build(ctx context.Context, w wish, target *url.URL) (*http.Request, error) {
	body, _, err := c.vault.text(w.Body)
	if err != nil {
		return nil, err
	}
	if len(body) > maxRequestBody || len(w.Headers) > maxHeaders {
		return nil, errors.New("a request can have at most 64 headers and a body of 256 KiB")
	}
	request, err := http.NewRequestWithContext(ctx, w.Method, target.String(), strings.NewReader(body))
	if err != nil {
		return nil, errors.New("the method of the request is not possible")
	}
	for name, pieces := range w.Headers {
		value, _, err := c.vault.text(pieces)
		if err != nil {
			return nil, err
		}
		if http.CanonicalHeaderKey(name) == "Host" {
			return nil, errors.New("the header Host is the URL's")
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			return nil, errors.New("the value of a header has more than one line")
		}
		request.Header.Set(name, value)
	}
	if len(w.Auth) == 2 {
		user, _, err := c.vault.text(w.Auth[0])
		if err != nil {
			return nil, err
		}
		password, _, err := c.vault.text(w.Auth[1])
		if err != nil {
			return nil, err
		}
		request.SetBasicAuth(user, password)
	}
	return request, nil
}

// refuse does not grant a wish: the script ends with this code.
func (c *call) refuse(code, why string) (reply, error) {
	c.refusal = code
	return reply{}, errors.New(why)
}

// codeOf tells a connection that did not come about from an answer that did not come; empty without an
// error.
func codeOf(err error) string {
	var f *fault.Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &f):
		return CodeHTTP
	case f.Code == fault.InvalidConfig:
		return CodeHost
	}
	return CodeNoContact
}

// saying is what a script's author is told of a request that failed: our own words, never the
// client's, which repeat the URL and what the server said.
func saying(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Message
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "there was no answer in time"
	}
	return "the connection, its TLS or the answer failed"
}
