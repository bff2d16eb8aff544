package gcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

func failure(kind engine.Kind, reason string, err error) *engine.Error {
	return &engine.Error{Kind: kind, Reason: reason, Err: err}
}

func misconfigured(reason string, err error) *engine.Error {
	return failure(engine.Misconfigured, reason, err)
}

func refused(format string, args ...any) *engine.Error {
	return failure(engine.Refused, fmt.Sprintf(format, args...), nil)
}

// apiError is an answer of Google that is no success.
type apiError struct {
	status     int    // of HTTP
	code       string // such as NOT_FOUND
	message    string // scrubbed
	limited    bool   // a quota was used up, though the status does not say so
	retryAfter time.Duration
}

func (a *apiError) Error() string { return a.String() }

func (a *apiError) String() string {
	if a.message == "" {
		return fmt.Sprintf("Google answers %d %s", a.status, a.code)
	}
	return fmt.Sprintf("Google answers %d: %s", a.status, a.message)
}

// throttled tells that nothing was done, and that later it may be.
func (a *apiError) throttled() bool { return a.status == http.StatusTooManyRequests || a.limited }

// conflict tells that somebody changed what was to be changed since it was read.
func (a *apiError) conflict() bool {
	return a.status == http.StatusConflict || a.status == http.StatusPreconditionFailed
}

// readError reads an answer in the form that all of Google's APIs have.
func readError(answer *http.Response, text []byte) *apiError {
	var body struct {
		Error struct {
			Status  string `json:"status"`
			Message string `json:"message"`
			Details []struct {
				Reason string `json:"reason"`
			} `json:"details"`
		} `json:"error"`
	}
	a := &apiError{status: answer.StatusCode, retryAfter: retryAfter(answer.Header)}
	if json.Unmarshal(text, &body) == nil {
		a.code, a.message = scrub(body.Error.Status), scrub(body.Error.Message)
	}
	for _, d := range body.Error.Details {
		a.limited = a.limited || d.Reason == "RATE_LIMIT_EXCEEDED"
	}
	return a
}

// credentialForm is what a token or an assertion looks like: no answer repeats one, and none is
// shown if it does.
var credentialForm = regexp.MustCompile(`(ya29\.|eyJ)[A-Za-z0-9_.=-]+|[A-Za-z0-9+/_=-]{64,}`)

// scrub makes a text of Google's one that can be shown.
func scrub(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	text = credentialForm.ReplaceAllString(text, "[redacted]")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}

// answerOf is Google's own answer in an error; nil where it has not answered.
func answerOf(err error) *apiError {
	var a *apiError
	if errors.As(err, &a) {
		return a
	}
	return nil
}

// gone tells whether Google answered that there is no such thing.
func gone(err error) bool {
	a := answerOf(err)
	return a != nil && a.status == http.StatusNotFound
}

// connectError maps a failure before anything was sent.
func connectError(ctx context.Context, attempt string, err error) *engine.Error {
	var known *engine.Error
	var unwanted *fault.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &unwanted) && unwanted.Code == fault.InvalidConfig: // of the dialer, about the address
		return misconfigured(unwanted.Message, err)
	case strings.Contains(err.Error(), "x509:"):
		return misconfigured(attempt+": the certificate of the endpoint is not the one to be expected; see tls_ca_path", err)
	case ctx.Err() != nil:
		return failure(engine.Unreachable, attempt+": there was no answer in time", err)
	}
	return failure(engine.Unreachable, attempt+": Google cannot be reached", err)
}

// plain is the error as the contract wants it.
func plain(err error) *engine.Error {
	var known *engine.Error
	if errors.As(err, &known) {
		return known
	}
	return failure(engine.Uncertain, "use the source", err)
}
