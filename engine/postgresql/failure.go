package postgresql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// SQLSTATEs that decide something here.
const (
	codeDivisionByZero    = "22012" // a fence fails by it, and shareGroup
	codeReadOnly          = "25006"
	codeInvalidAuth       = "28000"
	codeInvalidPassword   = "28P01"
	codeDependentObjects  = "2BP01"
	codeNoDatabase        = "3D000"
	codeSerialization     = "40001"
	codeDeadlock          = "40P01"
	codeNoPrivilege       = "42501"
	codeSyntax            = "42601"
	codeUndefinedObject   = "42704"
	codeDuplicateObject   = "42710"
	codeUniqueViolation   = "23505"
	codeTooManyClients    = "53300"
	codeLockNotAvailable  = "55P03"
	codeQueryCanceled     = "57014"
	codeCannotConnectNow  = "57P03"
	codeInternal          = "XX000" // "tuple concurrently updated" and its like
	codePrivilegeNotGiven = "01007" // a warning: GRANT gave nothing
)

func failure(kind engine.Kind, reason string, err error) *engine.Error {
	return &engine.Error{Kind: kind, Reason: reason, Err: loggable(err)}
}

func unreachable(reason string, err error) *engine.Error {
	return failure(engine.Unreachable, reason, err)
}
func busy(reason string, err error) *engine.Error    { return failure(engine.Busy, reason, err) }
func refused(reason string, err error) *engine.Error { return failure(engine.Refused, reason, err) }
func uncertain(reason string, err error) *engine.Error {
	return failure(engine.Uncertain, reason, err)
}
func wrongServer(reason string, err error) *engine.Error {
	return failure(engine.WrongServer, reason, err)
}
func misconfigured(reason string, err error) *engine.Error {
	return failure(engine.Misconfigured, reason, err)
}

// loggable keeps of a driver's error what may be in a log: its type and the
// source's own words, never a statement, which may hold a verifier.
func loggable(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg):
		return fmt.Errorf("%s: %s (SQLSTATE %s)", pg.Severity, words(pg), pg.Code)
	default:
		return err
	}
}

// words are the source's message. A syntax error quotes the statement, where a
// password may stand, so it is kept out; so are verifiers, which a statement of
// the operator's may have read from the catalogs and failed with.
func words(pg *pgconn.PgError) string {
	if pg.Code == codeSyntax {
		return "syntax error"
	}
	return verifierForm.ReplaceAllString(pg.Message, "[redacted]")
}

// verifierForm is what pg_authid.rolpassword holds, whole or cut off.
var verifierForm = regexp.MustCompile(`SCRAM-SHA-256\$[^\s"']*|\bmd5[0-9a-f]{32}\b`)

// connectError maps the failure to open a connection: nothing was sent.
func connectError(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	var unwanted *fault.Error
	if errors.As(err, &unwanted) && unwanted.Code == fault.InvalidConfig { // of the dialer, about the address
		return misconfigured(unwanted.Message, err)
	}
	if !errors.As(err, &pg) {
		switch text := err.Error(); {
		case ctx.Err() != nil:
			return unreachable("connect to the source: it did not answer in time", err)
		case strings.Contains(text, "server refused TLS connection"):
			return misconfigured("connect to the source: it offers no TLS; if the way to it is trusted, put sslmode=disable into connection_url", err)
		case strings.Contains(text, "require_auth"):
			return misconfigured("connect to the source: it is not verified and asks for the password in another way than scram-sha-256; set up SCRAM there, or TLS with sslmode=verify-full", err)
		case strings.Contains(text, "x509:"):
			return misconfigured("connect to the source: its certificate is not the one to be expected; see tls_ca_path and sslmode", err)
		case strings.Contains(text, "read only connection"):
			return wrongServer("connect to the source: none of its hosts takes changes", err)
		}
		return unreachable("connect to the source: it cannot be reached", err)
	}
	switch pg.Code {
	case codeInvalidPassword, codeInvalidAuth:
		return misconfigured("connect to the source: it refuses the root credentials", err)
	case codeNoDatabase, codeNoPrivilege:
		return misconfigured("connect to the source: "+words(pg), err)
	case codeTooManyClients, codeCannotConnectNow:
		return unreachable("connect to the source: it takes no connection now", err)
	}
	return unreachable("connect to the source: "+words(pg), err)
}

// sentError maps the failure of a message that changes nothing twice: after an
// ERROR the source has undone all of it; after anything else nobody knows.
// Secrets are taken out of the source's words.
func sentError(attempt string, err error, secrets ...statement.Secret) *engine.Error {
	var known *engine.Error
	if errors.As(err, &known) {
		return known
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		if errors.Is(err, errNotSent) {
			return unreachable(attempt+": the connection was lost before anything was sent", err)
		}
		return uncertain(attempt+": the source did not answer, so it may have been done", err)
	}
	if pg.Severity == "FATAL" || pg.Severity == "PANIC" {
		return uncertain(attempt+": the source ended the connection, so it may have been done", err)
	}
	text := words(pg)
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s.Reveal(), "[redacted]")
		}
	}
	reason := fmt.Sprintf("%s: %s (SQLSTATE %s)", attempt, text, pg.Code)
	repeat := retried(err)
	err = errors.New(reason) // without the secrets
	switch {
	case repeat, pg.Code == codeLockNotAvailable, pg.Code == codeQueryCanceled:
		return busy(reason, err)
	case pg.Code == codeReadOnly:
		return wrongServer(reason, err)
	case pg.Code == codeNoPrivilege:
		return misconfigured(reason, err)
	}
	return refused(reason, err)
}

// code is the SQLSTATE in an error; empty where the source did not send one.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// nameTaken tells whether the source found an account of that name. Other
// objects that a template makes may exist already, too; only the routine that
// complains tells them apart.
func nameTaken(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	return pg.Code == codeDuplicateObject && pg.Routine == "CreateRole" ||
		pg.Code == codeUniqueViolation && pg.ConstraintName == "pg_authid_rolname_index"
}

// plain takes the driver's error off, which is for this package only.
func plain(err error) *engine.Error {
	var known *engine.Error
	if errors.As(err, &known) {
		return known
	}
	return sentError("use the source", err)
}

func plainOrNil(err error) error {
	if err == nil {
		return nil
	}
	return plain(err)
}
