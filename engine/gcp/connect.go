package gcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// maxAnswer bounds an answer: a policy has at most 64 KiB, a page of accounts less than 1 MiB.
const maxAnswer = 4 << 20

// Pauses between attempts at what Google throttles or has not heard of yet.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 4 * time.Second
)

// call is one request to Google.
type call struct {
	attempt string // what is done, for errors
	method  string
	url     string // endpoint, version and resource, and the query
	in      any    // nil for no body
	out     any    // nil where the answer says nothing

	lane engine.Lane
	// repeatable says that doing it twice is doing it once, or that nothing is changed: then an
	// answer that leaves open whether it was done is followed by another attempt.
	repeatable bool
	// missing says that what the call needs may only not be there yet.
	missing func(*apiError) bool
}

// get is a call that changes nothing.
func get(attempt, url string, out any) call {
	return call{attempt: attempt, method: http.MethodGet, url: url, out: out, lane: engine.Revoking, repeatable: true}
}

// post is a call that changes something.
func post(attempt, url string, in, out any) call {
	return call{attempt: attempt, method: http.MethodPost, url: url, in: in, out: out, lane: engine.Revoking}
}

// do makes a request, again while Google wants it later or has not heard of what was made just now:
// until the context ends.
func (e *Engine) do(ctx context.Context, c call) error {
	fresh := false     // the token was refused once and fetched anew
	reconnect := false // there was no answer, perhaps for want of a connection that lived
	for tried := 0; ; tried++ {
		err := e.once(ctx, c)
		if err == nil {
			return nil
		}
		said := answerOf(err)
		pause := backoff(tried)
		switch {
		case said == nil && c.repeatable && !reconnect && engine.KindOf(err) == engine.Unreachable:
			reconnect, pause = true, 0
		case said == nil:
			return err
		case said.status == http.StatusUnauthorized && !fresh:
			fresh, pause = true, 0
		case said.throttled():
			pause = max(pause, said.retryAfter)
		case c.repeatable && said.status >= 500:
		case c.missing != nil && c.missing(said):
		default:
			return err
		}
		if !engine.Wait(ctx, pause) {
			return err
		}
	}
}

// backoff doubles up to longestPause, and is spread over its second half.
func backoff(tried int) time.Duration {
	pause := min(firstPause<<min(tried, 10), longestPause)
	return pause/2 + rand.N(pause/2) //nolint:gosec // nothing secret depends on it
}

// once makes a request. Its error is an *engine.Error, of which one with an *apiError in it is
// Google's own answer.
func (e *Engine) once(ctx context.Context, c call) error {
	if e.isClosed() {
		return failure(engine.Unreachable, c.attempt+": the engine is closed", nil)
	}
	token, err := e.tokens.get(ctx)
	if err != nil {
		return err
	}
	var body io.Reader
	if c.in != nil {
		b, err := json.Marshal(c.in)
		if err != nil {
			return failure(engine.Refused, c.attempt+": the request cannot be written", err)
		}
		body = bytes.NewReader(b)
	}
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
		// WroteRequest comes before the buffer is flushed: a kill there would send nothing.
		GotFirstResponseByte: func() { failpoint.Sent(ctx) },
	})
	r, err := http.NewRequestWithContext(traced, c.method, c.url, body)
	if err != nil {
		return failure(engine.Refused, c.attempt+": the request cannot be written", err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "application/json")
	if c.in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	client := e.other
	if c.lane == engine.Issuing {
		client = e.issuing
	}
	answer, err := client.Do(r)
	if err != nil {
		client.CloseIdleConnections() // those beside it probably do not work either
		return c.lost(ctx, sent.Load(), err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		client.CloseIdleConnections()
		return c.lost(ctx, true, err)
	case len(text) > maxAnswer:
		return c.lost(ctx, true, fmt.Errorf("the answer is longer than %d bytes", maxAnswer))
	case answer.StatusCode != http.StatusOK:
		said := readError(answer, text)
		if said.status == http.StatusUnauthorized {
			e.tokens.drop(token)
		}
		return c.answered(said)
	case c.out == nil:
		return nil
	}
	if err := json.Unmarshal(text, c.out); err != nil {
		return c.lost(ctx, true, errors.New("the answer is not the JSON that Google documents"))
	}
	return nil
}

// lost is the error of a call without an answer.
func (c call) lost(ctx context.Context, sent bool, err error) *engine.Error {
	switch {
	case !sent:
		return connectError(ctx, c.attempt, err)
	case c.method == http.MethodGet || c.repeatable:
		return failure(engine.Unreachable, c.attempt+": there was no answer", err)
	}
	return failure(engine.Uncertain, c.attempt+": there was no answer, so it may have been done", err)
}

// answered is the error of a call that Google refused.
func (c call) answered(said *apiError) *engine.Error {
	reason := c.attempt + ": " + said.String()
	switch {
	case said.status == http.StatusUnauthorized:
		return failure(engine.Misconfigured, c.attempt+": Google refuses the token of the root", said)
	case said.throttled():
		return failure(engine.Busy, reason, said)
	case said.status >= 500 && !c.repeatable:
		return failure(engine.Uncertain, reason, said)
	case said.status >= 500:
		return failure(engine.Unreachable, reason, said)
	case said.status >= 300 && said.status < 400:
		return failure(engine.Misconfigured, c.attempt+": the answer leads elsewhere; is the endpoint Google's?", said)
	}
	return failure(engine.Refused, reason, said)
}

// retryAfter reads the header of that name, in seconds; what is none is 0.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
