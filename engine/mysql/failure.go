package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// Numbers of errors that decide something here, of both kinds of servers.
const (
	codeTooManyConnections = 1040
	codeNoDatabase         = 1049
	codeSyntax             = 1064
	codeUnknownThread      = 1094
	codeHostBlocked        = 1129
	codeHostRefused        = 1130
	codeServerShutdown     = 1053
	codeLockWaitTimeout    = 1205
	codeDeadlock           = 1213
	codeManyRows           = 1242 // a fence fails by it
	codeReadOnly           = 1290
	codeInterrupted        = 1317
	codeCannotUser         = 1396 // of CREATE USER: an account of that name and host exists
	codeKilled             = 1927 // MariaDB: the connection was killed
	codeStatementTimeout   = 1969 // MariaDB
	codeExecutionTimeout   = 3024 // MySQL
	codeDefiner            = 4006 // MySQL: stored objects are defined as this account
)

// refusedLogins are the answers to root credentials that do not work.
var refusedLogins = []uint16{1044, 1045, 1524, 1698, 1820, 1862, 3118, 3159, 4151}

// noRights are the answers to what root may not do.
var noRights = []uint16{1044, 1045, 1095, 1142, 1143, 1227, 1370, 3530}

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

// loggable keeps of a driver's error what may be in a log: the source's own
// words, never a statement, which may hold a hash.
func loggable(err error) error {
	var said *mysql.MySQLError
	if errors.As(err, &said) {
		return fmt.Errorf("%s (error %d)", words(said), said.Number)
	}
	return err
}

// words are the source's message. A syntax error quotes the statement, where a
// password may stand, so it is kept out; so are hashes.
func words(said *mysql.MySQLError) string {
	if said.Number == codeSyntax {
		return "syntax error"
	}
	return hashForm.ReplaceAllString(said.Message, "[redacted]")
}

// hashForm is what the servers keep of passwords.
var hashForm = regexp.MustCompile(`\$A\$[0-9A-F]{3}\$\S*|\*[0-9A-F]{40}\b`)

// errNotSent says that the source never saw a message.
var errNotSent = errors.New("the connection was closed, or the time was over, before anything was sent")

// code is the number of the source's error; 0 where it has not answered.
func code(err error) uint16 {
	var said *mysql.MySQLError
	if errors.As(err, &said) {
		return said.Number
	}
	return 0
}

// connectError maps the failure to open a connection: nothing was sent.
func connectError(ctx context.Context, err error) error {
	var known *engine.Error
	if errors.As(err, &known) {
		return known
	}
	var unwanted *fault.Error
	if errors.As(err, &unwanted) && unwanted.Code == fault.InvalidConfig { // of the dialer, about the address
		return misconfigured(unwanted.Message, err)
	}
	if number := code(err); number != 0 {
		return refusedConnection(number, err)
	}
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &certificate), errors.As(err, &authority):
		return misconfigured("connect to the source: its certificate is not the one to be expected; see tls_ca_path and tls", err)
	case errors.Is(err, mysql.ErrNoTLS):
		return misconfigured("connect to the source: it offers no TLS; if the way to it is trusted, put tls=false into connection_url", err)
	case errors.Is(err, mysql.ErrCleartextPassword), errors.Is(err, mysql.ErrOldPassword), errors.Is(err, mysql.ErrUnknownPlugin), errors.Is(err, mysql.ErrNativePassword):
		return misconfigured("connect to the source: it asks root for its password in a way that is not taken; root must log in by "+cachingPlugin+" or "+nativePlugin, err)
	case ctx.Err() != nil:
		return unreachable("connect to the source: it did not answer in time", err)
	}
	return unreachable("connect to the source: it cannot be reached", err)
}

func refusedConnection(number uint16, err error) error {
	var said *mysql.MySQLError
	errors.As(err, &said)
	switch {
	case number == codeNoDatabase:
		return misconfigured("connect to the source: "+words(said), err)
	case slices.Contains(refusedLogins, number):
		return misconfigured("connect to the source: it refuses the root credentials; a root with "+cachingPlugin+" on another machine needs TLS", err)
	case number == codeHostRefused, number == codeHostBlocked:
		return misconfigured("connect to the source: it takes no connection from this address", err)
	case number == codeReadOnly:
		return wrongServer("connect to the source: it takes no changes", err)
	case number == codeTooManyConnections:
		return unreachable("connect to the source: it takes no connection now", err)
	}
	return unreachable("connect to the source: "+words(said), err)
}

// sentError maps the failure of a statement: after an error of the source it, and
// what followed it in the message, has changed nothing; after anything else nobody
// knows. Secrets are taken out of the source's words.
func sentError(attempt string, err error, secrets ...statement.Secret) *engine.Error {
	var known *engine.Error
	if errors.As(err, &known) {
		return known
	}
	var said *mysql.MySQLError
	if !errors.As(err, &said) {
		if errors.Is(err, errNotSent) || errors.Is(err, driver.ErrBadConn) { // the driver's word that it sent nothing
			return unreachable(attempt+": the connection was lost before anything was sent", err)
		}
		return uncertain(attempt+": the source did not answer, so it may have been done", err)
	}
	text := words(said)
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s.Reveal(), "[redacted]")
		}
	}
	reason := fmt.Sprintf("%s: %s (error %d)", attempt, text, said.Number)
	err = errors.New(reason) // without the secrets
	switch {
	case said.Number == codeServerShutdown, said.Number == codeKilled, said.Number == codeInterrupted:
		return uncertain(reason, err)
	case slices.Contains([]uint16{codeLockWaitTimeout, codeDeadlock, codeStatementTimeout, codeExecutionTimeout}, said.Number):
		return busy(reason, err)
	case said.Number == codeReadOnly:
		return wrongServer(reason, err)
	case slices.Contains(noRights, said.Number):
		return misconfigured(reason, err)
	}
	return refused(reason, err)
}

// asked maps the failure of what changes nothing: that it may have been executed
// does not matter.
func asked(attempt string, err error) *engine.Error {
	mapped := sentError(attempt, err)
	if mapped.Kind == engine.Uncertain {
		return unreachable(attempt+": the source did not answer", err)
	}
	return mapped
}

// plain takes the driver's error off, which is for this package only.
func plain(err error) *engine.Error { return sentError("use the source", err) }

func plainOrNil(err error) error {
	if err == nil {
		return nil
	}
	return plain(err)
}

// rawError is an *engine.Error that still tells the driver's error to this
// package, and whether anything behind the fence may have been executed.
type rawError struct {
	mapped *engine.Error
	raw    error
	begun  bool
}

func (e rawError) Error() string   { return e.mapped.Error() }
func (e rawError) Unwrap() []error { return []error{e.mapped, e.raw} }
