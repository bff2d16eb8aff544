package redis

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

// The first words of errors of the source that decide something here. The rest
// of their texts differs between versions, and between Redis and Valkey.
const (
	codeNoPermission = "NOPERM"
	codeWrongPass    = "WRONGPASS"
	codeNoAuth       = "NOAUTH"
	codeLoading      = "LOADING"
	codeBusy         = "BUSY"
	codeMasterDown   = "MASTERDOWN"
	codeSyntax       = "ERR"
)

// errNotSent says that the source never saw a message.
var errNotSent = errors.New("the connection was lost before anything was sent")

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
func wrongServer(reason string, err error) *engine.Error {
	return failure(engine.WrongServer, reason, err)
}
func misconfigured(reason string, err error) *engine.Error {
	return failure(engine.Misconfigured, reason, err)
}

// said is the source's own answer in an error, without the hashes that it may
// repeat; ok is false where the source has not answered.
func said(err error) (words string, ok bool) {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return "", false
	}
	return hashForm.ReplaceAllString(strings.TrimSpace(answer.Error()), "[redacted]"), true
}

// hashForm is what ACL GETUSER shows of a password.
var hashForm = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// code is the first word of the source's answer; empty where it has not
// answered.
func code(err error) string {
	words, _ := said(err)
	first, _, _ := strings.Cut(words, " ")
	return first
}

// connectError maps the failure to open a connection: nothing was sent.
func connectError(ctx context.Context, err error) *engine.Error {
	var known *engine.Error
	var unwanted *fault.Error
	text := err.Error()
	switch words, answered := said(err); {
	case errors.As(err, &known):
		return known
	case errors.As(err, &unwanted) && unwanted.Code == fault.InvalidConfig: // of the dialer, about the address
		return misconfigured(unwanted.Message, err)
	case strings.Contains(text, codeWrongPass), strings.Contains(text, codeNoAuth), strings.Contains(text, "Client sent AUTH"):
		return misconfigured("connect to the source: it refuses the root credentials", nil)
	case answered && code(err) == codeNoPermission:
		return misconfigured("connect to the source: root lacks a right: "+words, nil)
	case answered && noACL(words):
		return sentError("connect to the source", err)
	case answered:
		return unreachable("connect to the source: "+words, nil)
	case strings.Contains(text, "x509:"):
		return misconfigured("connect to the source: its certificate is not the one to be expected; see tls_ca_path", err)
	case ctx.Err() != nil && strings.Contains(text, handshaking):
		return unreachable("connect to the source: it did not answer in time: does it talk TLS on this port?", err)
	case ctx.Err() != nil:
		return unreachable("connect to the source: it did not answer in time", err)
	}
	return unreachable("connect to the source: it cannot be reached", err)
}

// handshaking begins what went wrong while TLS was set up. A server without TLS
// waits for the end of what it takes for a command.
const handshaking = "handshake: "

// noACL tells the answer of a server on which ACL, or a part of it, is switched
// off.
func noACL(words string) bool {
	lower := strings.ToLower(words)
	return strings.Contains(lower, "unknown") && strings.Contains(lower, "command") && strings.Contains(lower, "acl")
}

// sentError maps the failure of a command: after an error of the source it has
// changed nothing; after anything else nobody knows.
func sentError(attempt string, err error) *engine.Error {
	var known *engine.Error
	if errors.As(err, &known) {
		return known
	}
	words, answered := said(err)
	switch {
	case errors.Is(err, errNotSent):
		return unreachable(attempt+": the connection was lost before anything was sent", nil)
	case !answered:
		return uncertain(attempt+": the source did not answer, so it may have been done", err)
	}
	if noACL(words) {
		return misconfigured(attempt+": the server takes no ACL commands; managed services switch them off, and there only the service's own API makes users", nil)
	}
	switch code(err) {
	case codeNoPermission:
		return misconfigured(attempt+": root lacks a right: "+words, nil)
	case codeNoAuth, codeWrongPass:
		return misconfigured(attempt+": the source refuses the root credentials", nil)
	case codeLoading, codeBusy, codeMasterDown:
		return busy(attempt+": "+words, nil)
	}
	return refused(attempt + ": " + words)
}

// asked maps the failure of a command that changes nothing: that it may have
// been executed does not matter.
func asked(attempt string, err error) *engine.Error {
	mapped := sentError(attempt, err)
	if mapped.Kind == engine.Uncertain {
		return unreachable(attempt+": the source did not answer", err)
	}
	return mapped
}

// plain is the error as the contract wants it.
func plain(err error) *engine.Error { return sentError("use the source", err) }

// away tells whether a node did not answer, as opposed to saying no.
func away(err error) bool {
	k := engine.KindOf(err)
	return k == engine.Unreachable || k == engine.Uncertain
}
