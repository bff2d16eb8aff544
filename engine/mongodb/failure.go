package mongodb

import (
	"context"
	"errors"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

// Codes of errors of the source that decide something here (MongoDB's error_codes.yml).
const (
	codeUserNotFound       = 11
	codeUnauthorized       = 13
	codeAuthentication     = 18
	codeLockTimeout        = 24
	codeRoleNotFound       = 31
	codeLockBusy           = 46
	codeTimeExpired        = 50
	codeCommandNotFound    = 59
	codeWriteConcernFailed = 64
	codeShuttingDown       = 91
	codeSteppedDown        = 189
	codeTimeLimit          = 262
	codeAtlas              = 8000
	codeNotPrimary         = 10107
	codeInterruptedDown    = 11600
	codeInterrupted        = 11601
	codeInterruptedChange  = 11602
	codeNotPrimaryNoOk     = 13435
	codeNotPrimaryOrSecond = 13436
	codeRoleExists         = 51002
	codeUserExists         = 51003
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
func wrongServer(reason string) *engine.Error {
	return failure(engine.WrongServer, reason, nil)
}
func misconfigured(reason string, err error) *engine.Error {
	return failure(engine.Misconfigured, reason, err)
}

// answered is the source's own answer in an error; ok is false where it has not answered.
func answered(err error) (answer mongo.CommandError, ok bool) {
	return answer, errors.As(err, &answer) && answer.Code != 0
}

// code is that of the source's answer; 0 where it has not answered.
func code(err error) int32 {
	answer, _ := answered(err)
	return answer.Code
}

// words are the source's own, cut where a broken or hostile one goes on and on.
func words(answer mongo.CommandError) string {
	const limit = 300
	text := strings.ToValidUTF8(answer.Message, "?")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// sentError maps the failure of a command that changes something. What the source refuses it has not
// done; of what it began and gave up, and of what it never answered, nobody knows.
func sentError(attempt string, err error) *engine.Error {
	var known *engine.Error
	var late mongo.WriteException
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &late):
		return uncertain(attempt+": it was done, and not confirmed by a majority of the members", err)
	}
	answer, ok := answered(err)
	if !ok {
		return silence(attempt, err)
	}
	switch answer.Code {
	case codeUnauthorized:
		return misconfigured(attempt+": root lacks a right: "+words(answer), nil)
	case codeAuthentication:
		return misconfigured(attempt+": the source refuses the root credentials", nil)
	case codeAtlas:
		return misconfigured(attempt+": this is MongoDB Atlas, where only Atlas' own API makes users: "+noAtlas, nil)
	case codeCommandNotFound:
		return misconfigured(attempt+": the server does not know the command: "+words(answer), nil)
	case codeNotPrimary, codeNotPrimaryNoOk, codeNotPrimaryOrSecond, codeLockBusy, codeLockTimeout:
		return busy(attempt+": "+words(answer), nil)
	case codeTimeExpired, codeTimeLimit, codeWriteConcernFailed, codeShuttingDown, codeSteppedDown, codeInterruptedDown, codeInterrupted, codeInterruptedChange:
		return uncertain(attempt+": the source gave up on the way: "+words(answer), nil)
	}
	return refused(attempt + ": " + words(answer))
}

// silence maps a failure without an answer. Nothing was sent where no server, or no connection, was
// found; the driver tells that by types of its own.
func silence(attempt string, err error) *engine.Error {
	var selection topology.ServerSelectionError
	var waiting topology.WaitQueueTimeoutError
	var unwanted *fault.Error
	text := err.Error()
	switch {
	case errors.As(err, &unwanted) && unwanted.Code == fault.InvalidConfig: // of the dialer, about the address
		return misconfigured(attempt+": "+unwanted.Message, err)
	case strings.Contains(text, "x509:"):
		return misconfigured(attempt+": its certificate is not the one to be expected; see tls_ca_path", err)
	case strings.Contains(text, "wire version"):
		return misconfigured(attempt+": its version is not one that works: MongoDB 4.4 is the first", err)
	case strings.Contains(text, "is not encrypted"):
		return misconfigured(attempt+": the source lists a member that would be reached in clear: write tls=true, or set allow_plaintext", err)
	case strings.Contains(text, "AuthenticationFailed"):
		return misconfigured(attempt+": the source refuses the root credentials", nil)
	case strings.Contains(text, "auth error"):
		return misconfigured(attempt+": the source takes no login by SCRAM-SHA-256 for root", err)
	case errors.As(err, &waiting): // issuances leave one for others, so those in use are not answered
		return unreachable(attempt+": it did not answer in time on any connection", err)
	case errors.As(err, &selection) && errors.Is(err, context.DeadlineExceeded):
		return unreachable(attempt+": it did not answer in time, or has no primary", err)
	case errors.As(err, &selection), unsent(err), errors.Is(err, mongo.ErrClientDisconnected):
		return unreachable(attempt+": it cannot be reached", err)
	}
	return uncertain(attempt+": the source did not answer, so it may have been done", err)
}

// unsent tells the driver's error for a command that it did not send, because another one had just
// failed on the connections to the same server.
func unsent(err error) bool {
	var cleared interface{ Retryable() bool }
	return errors.As(err, &cleared) && cleared.Retryable()
}

// asked maps the failure of a command that changes nothing: that it may have been executed does not
// matter.
func asked(attempt string, err error) *engine.Error {
	mapped := sentError(attempt, err)
	if mapped.Kind == engine.Uncertain {
		return unreachable(attempt+": the source did not answer", err)
	}
	return mapped
}

// plain is the error as the contract wants it.
func plain(err error) *engine.Error { return sentError("use the source", err) }

// away tells whether a server did not answer, as opposed to saying no.
func away(err error) bool {
	k := engine.KindOf(err)
	return k == engine.Unreachable || k == engine.Uncertain
}
