package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
)

// response is the one writer of answers. Each request is answered once and in one piece.
type response struct {
	http.ResponseWriter
	origin      access.Origin
	route       *route         // nil until it is found
	caller      *access.Caller // nil until it is known
	logger      *slog.Logger
	status      int        // what was answered; 0 while nothing was
	code        fault.Code // of an error
	undelivered func()
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// send writes the whole answer. Who waits for undelivered answers is told of one whose request
// had ended before its first byte, or whose writing failed.
func (w *response) send(ctx context.Context, status int, contentType string, body []byte) {
	if w.status != 0 {
		return
	}
	w.status = status
	lost := w.undelivered
	w.undelivered = nil
	if ctx.Err() != nil && lost != nil {
		lost()
		w.fail(fault.From(ctx.Err()))
		return
	}
	if lost != nil {
		failpoint.Hit(failpoint.F8)
	}
	w.rateLimit()
	h := w.Header()
	if contentType != "" {
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	var err error
	if failpoint.Present && lost != nil {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		failpoint.Hit(failpoint.F9)
		body = body[len(body)/2:]
	}
	if len(body) > 0 {
		_, err = w.Write(body)
	}
	if err == nil && lost != nil {
		err = http.NewResponseController(w.ResponseWriter).Flush()
	}
	if err != nil && lost != nil {
		lost()
	}
}

// fail answers with the envelope. The cause goes to the log, never to the caller.
func (w *response) fail(err error) {
	if w.undelivered != nil {
		w.undelivered()
		w.undelivered = nil
	}
	e := fault.From(err)
	status := fault.Status(e.Code)
	w.status, w.code = status, e.Code
	if status == http.StatusInternalServerError {
		w.logger.Error("request failed", "request_id", w.origin.RequestID, "code", e.Code, "cause", e.Err)
	}
	w.rateLimit()
	h := w.Header()
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusInternalServerError:
		h.Set("Connection", "close")
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	body, err := json.Marshal(api.ErrorBody{Error: api.ErrorDetail{
		Code: string(e.Code), Message: e.Message, Details: e.Details, RequestID: w.origin.RequestID}})
	if err != nil { // a detail that is no JSON: the answer goes without details
		body, _ = json.Marshal(api.ErrorBody{Error: api.ErrorDetail{
			Code: string(e.Code), Message: e.Message, RequestID: w.origin.RequestID}})
	}
	h.Set("Content-Type", typeJSON)
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the caller may be gone; nothing depends on an error's delivery
}

// rateLimit tells the state of the limit that the request counted against.
func (w *response) rateLimit() {
	if w.caller == nil {
		return
	}
	if l := w.caller.RateLimit(); l != nil {
		h := w.Header()
		h.Set("X-RateLimit-Limit", strconv.Itoa(l.Limit))
		h.Set("X-RateLimit-Remaining", strconv.Itoa(l.Remaining))
		h.Set("X-RateLimit-Reset", strconv.FormatInt(l.Reset.Unix(), 10))
	}
}

// identity is the caller's, "" while it is not known.
func (w *response) identity() string {
	if w.caller == nil {
		return ""
	}
	return w.caller.Identity
}
