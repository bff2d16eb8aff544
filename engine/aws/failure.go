package aws

import (
	"errors"
	"net"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

func failure(kind engine.Kind, reason string, err error) *engine.Error {
	return &engine.Error{Kind: kind, Reason: reason, Err: err}
}

// The codes of AWS that decide something here.
const (
	codeNoSuchEntity    = "NoSuchEntity"
	codeExists          = "EntityAlreadyExists"
	codeDeleteConflict  = "DeleteConflict"
	codeLimitExceeded   = "LimitExceeded"
	codeNotThere        = "NotFound" // what some services that speak IAM answer
	signatureHasExpired = "Signature expired"
)

// refusedRoot are the codes of a request whose credentials AWS does not take.
var refusedRoot = map[string]bool{
	"InvalidClientTokenId": true, "SignatureDoesNotMatch": true, "ExpiredToken": true, "ExpiredTokenException": true,
	"UnrecognizedClientException": true, "InvalidAccessKeyId": true, "IncompleteSignature": true, "AuthFailure": true,
}

var deniedRoot = map[string]bool{"AccessDenied": true, "AccessDeniedException": true, "UnauthorizedOperation": true}

// tryAgain are the codes after which nothing was done and the same request may succeed later.
var tryAgain = map[string]bool{
	"Throttling": true, "ThrottlingException": true, "RequestThrottled": true, "TooManyRequestsException": true, "RequestLimitExceeded": true,
	"SlowDown": true, "PriorRequestNotComplete": true, "EntityTemporarilyUnmodifiable": true, "ConcurrentModification": true,
}

// code is AWS's code in an error; empty where it has not answered.
func code(err error) string {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return ""
	}
	return answer.ErrorCode()
}

// denied tells that root has not the right that a request needs. A root that could not get its own keys
// has not been asked for it.
func denied(err error) bool { return deniedRoot[code(err)] && !assuming(err) }

// gone tells that what was to be changed or deleted is not there.
func gone(err error) bool { return code(err) == codeNoSuchEntity || code(err) == codeNotThere }

// expired tells that AWS came to a request after it was no longer valid.
func expired(err error) bool {
	var answer smithy.APIError
	return errors.As(err, &answer) && (answer.ErrorCode() == "RequestExpired" || strings.HasPrefix(answer.ErrorMessage(), signatureHasExpired))
}

// operation is the right that a failed request needs, such as iam:CreateUser; sts:AssumeRole where it is
// the role of the root that could not be had for it.
func operation(err error) string {
	right := "a right"
	for op := (*smithy.OperationError)(nil); errors.As(err, &op); err = op.Err {
		right = strings.ToLower(op.Service()) + ":" + op.Operation()
	}
	return right
}

// sent maps the failure of a request that changes something: after an answer of AWS that is none of
// its own failures it has changed nothing; after anything else nobody knows. AWS's own words are for
// the log: they may repeat what was sent.
func sent(attempt string, err error) *engine.Error {
	var known *engine.Error
	if err == nil {
		return nil
	} else if errors.As(err, &known) {
		return known
	}
	if never := notSent(attempt, err); never != nil {
		return never
	}
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return failure(engine.Uncertain, attempt+": AWS did not answer, so it may have been done", err)
	}
	switch c := answer.ErrorCode(); {
	case expired(err):
		return failure(engine.Refused, attempt+": the deadline had passed when AWS came to it", err)
	case refusedRoot[c]:
		return failure(engine.Misconfigured, attempt+": AWS refuses the root credentials", err)
	case deniedRoot[c]:
		return failure(engine.Misconfigured, attempt+": root may not "+operation(err)+"; the guide to this engine shows what it needs", err)
	case tryAgain[c]:
		return failure(engine.Busy, attempt+": AWS asks to slow down", err)
	case c == codeLimitExceeded:
		return failure(engine.Refused, attempt+": a quota of the account is used up at "+operation(err), err)
	case answer.ErrorFault() == smithy.FaultServer || serverError(err):
		return failure(engine.Uncertain, attempt+": AWS failed, so it may have been done", err)
	}
	return failure(engine.Refused, attempt+": "+operation(err)+" answers "+safeCode(answer.ErrorCode()), err)
}

// ending is the error of a revocation: what root may not do to one user, by its path or its name, is
// said of that one, and keeps no other from its end.
func ending(err error) error {
	var known *engine.Error
	if !errors.As(err, &known) || !denied(err) {
		return err
	}
	return failure(engine.Refused, known.Reason, known.Err)
}

// assuming tells whether it is the role of the root, or of the host, that a request failed to get.
func assuming(err error) bool {
	var op *smithy.OperationError
	for errors.As(err, &op) {
		if strings.HasPrefix(op.Operation(), "AssumeRole") {
			return true
		}
		err = op.Err
	}
	return false
}

// asked maps the failure of a request that changes nothing, or nothing that anybody could use: that
// it may have been executed does not matter.
func asked(attempt string, err error) *engine.Error {
	mapped := sent(attempt, err)
	if mapped != nil && mapped.Kind == engine.Uncertain {
		return failure(engine.Unreachable, attempt+": AWS did not answer", err)
	}
	return mapped
}

// notSent maps the failure to reach AWS at all; nil where something may have been sent.
func notSent(attempt string, err error) *engine.Error {
	var unwanted *fault.Error
	var dialed *net.OpError
	switch {
	case errors.As(err, &unwanted) && unwanted.Code == fault.InvalidConfig: // of the dialer, about the address
		return failure(engine.Misconfigured, attempt+": "+unwanted.Message, err)
	case errors.As(err, &unwanted):
		return failure(engine.Unreachable, attempt+": AWS cannot be reached", err)
	case strings.Contains(err.Error(), "x509:"):
		return failure(engine.Misconfigured, attempt+": the certificate of the endpoint is not the one to be expected; see tls_ca_path", err)
	case errors.As(err, &dialed) && dialed.Op == "dial":
		return failure(engine.Unreachable, attempt+": AWS cannot be reached", err)
	}
	return nil
}

// serverError tells an answer of status 5xx.
func serverError(err error) bool {
	var status interface{ HTTPStatusCode() int }
	return errors.As(err, &status) && status.HTTPStatusCode() >= 500
}

// safeCode is a code that can be shown: it comes from the network.
func safeCode(c string) string {
	if len(c) > 64 || strings.Trim(c, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.") != "" {
		return "an error"
	}
	return c
}

// plain keeps the absence of an error one.
func plain(err *engine.Error) error {
	if err == nil {
		return nil
	}
	return err
}

// away tells whether AWS did not answer, as opposed to saying no.
func away(err error) bool {
	k := engine.KindOf(err)
	return k == engine.Unreachable || k == engine.Uncertain
}
