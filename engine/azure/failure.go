package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

func failure(kind engine.Kind, reason string, err error) *engine.Error {
	return &engine.Error{Kind: kind, Reason: reason, Err: err}
}

func unreachable(reason string, err error) *engine.Error {
	return failure(engine.Unreachable, reason, err)
}
func busy(reason string, err error) *engine.Error { return failure(engine.Busy, reason, err) }
func refused(reason string) *engine.Error         { return failure(engine.Refused, reason, nil) }
func uncertain(reason string, err error) *engine.Error {
	return failure(engine.Uncertain, reason, err)
}
func misconfigured(reason string, err error) *engine.Error {
	return failure(engine.Misconfigured, reason, err)
}

// answer is an error that a service answered with. Of its text only the code is repeated: the rest may
// hold anything.
type answer struct {
	q          request
	status     int
	code       string // empty where there is none
	retryAfter time.Duration
	text       []byte
}

// codeForm is what a code may be, so that it can be shown.
var codeForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,79}$`)

// newAnswer reads the error of Microsoft Graph and of Azure Resource Manager, which have one form.
func newAnswer(q request, response *http.Response, text []byte) *answer {
	a := &answer{q: q, status: response.StatusCode, text: text}
	if a.status == http.StatusTooManyRequests ||
		a.status == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "" && q.method != http.MethodPost { // which may have been executed
		a.retryAfter = retryAfter(response.Header)
	}
	var said struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &said) == nil && codeForm.MatchString(said.Error.Code) {
		a.code = said.Error.Code
	}
	return a
}

func (a *answer) Error() string {
	return fmt.Sprintf("%s: the service answers %d %s", a.q.attempt, a.status, a.code)
}

// throttled tells whether the service has not executed the request and asks to wait.
func (a *answer) throttled() bool { return a.retryAfter > 0 }

// says tells whether the service's message holds a text; Graph tells some failures apart by it alone.
func (a *answer) says(text string) bool {
	return strings.Contains(strings.ToLower(string(a.text)), strings.ToLower(text))
}

// notFound tells whether a service says that it does not know the thing.
func notFound(err error) bool {
	var a *answer
	return errors.As(err, &a) && a.status == http.StatusNotFound
}

// lost is the failure to get an answer.
func lost(q request, sent bool, err error) error {
	var unwanted *fault.Error
	changes := q.method != http.MethodGet
	switch text := err.Error(); {
	case errors.As(err, &unwanted) && unwanted.Code == fault.InvalidConfig: // of the dialer, about the address
		return misconfigured(unwanted.Message, err)
	case strings.Contains(text, "x509:"):
		return misconfigured(q.attempt+": the certificate is not the one to be expected; see tls_ca_path", err)
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return misconfigured(q.attempt+": the address does not talk TLS", err)
	case sent && changes:
		return uncertain(q.attempt+": Azure did not answer, so it may have been done", err)
	case errors.Is(err, context.DeadlineExceeded):
		return unreachable(q.attempt+": Azure did not answer in time", err)
	}
	return unreachable(q.attempt+": Azure cannot be reached", err)
}

// mapped is the error as the contract wants it.
func mapped(attempt string, err error) *engine.Error {
	var known *engine.Error
	var a *answer
	switch {
	case errors.As(err, &known):
		return known
	case !errors.As(err, &a):
		return uncertain(attempt+": it failed in an unknown way", err)
	}
	attempt = a.q.attempt
	said := "Azure answers " + strconv.Itoa(a.status)
	if a.code != "" {
		said += " " + a.code
	}
	switch {
	case a.throttled():
		return busy(attempt+": Azure has had too many requests", err)
	case a.status == http.StatusUnauthorized:
		return misconfigured(attempt+": "+said+": it does not take the root's token", err)
	case a.code == "Directory_QuotaExceeded":
		return failure(engine.Refused, attempt+": "+said+": root, or the tenant, has as many objects as Microsoft allows, those in the recycle bin counted: set permanently_delete on the roles, empty the bin, or give root a role of Microsoft Entra ID that lifts the limit", err)
	case a.status == http.StatusForbidden && a.q.grant != "":
		return misconfigured(attempt+": "+said+": root lacks a right: "+a.q.grant, err)
	case a.status == http.StatusForbidden:
		return misconfigured(attempt+": "+said+": root lacks a right", err)
	case a.status >= 500 && a.q.method != http.MethodGet:
		return uncertain(attempt+": "+said+", so it may have been done", err)
	case a.status >= 500:
		return unreachable(attempt+": "+said, err)
	}
	return failure(engine.Refused, attempt+": "+said, err)
}

// forbidden tells whether a service says that root may not do it.
func forbidden(err error) bool {
	var a *answer
	return errors.As(err, &a) && a.status == http.StatusForbidden
}

// ending is mapped for a revocation: what root may not do at one scope, or to one object, is said of that
// credential, and keeps no other from its end.
func ending(err error) *engine.Error {
	known := mapped(revoking, err)
	var a *answer
	if known.Kind == engine.Misconfigured && forbidden(err) && errors.As(err, &a) && (a.q.to == arm || a.q.method != http.MethodGet) {
		return failure(engine.Refused, known.Reason, err)
	}
	return known
}

// asked is mapped for what changes nothing: that it may have been done does not matter.
func asked(attempt string, err error) *engine.Error {
	known := mapped(attempt, err)
	if known.Kind == engine.Uncertain {
		return unreachable(known.Reason, err)
	}
	return known
}
