package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/fault"
)

// The exit codes; they are part of the contract (docs/api.md, "Command line").
const (
	exitOK             = 0
	exitGeneral        = 1
	exitAuthentication = 2
	exitAuthorization  = 3
	exitNotFound       = 4
	exitValidation     = 5
)

// usageError is a command line that cannot be understood.
type usageError struct {
	err     error
	command string
	line    string
}

func (e *usageError) Error() string { return e.err.Error() }

func usage(cmd *cobra.Command, err error) error {
	return &usageError{err: err, command: cmd.CommandPath(), line: cmd.UseLine()}
}

// invalid is an argument or a file that cannot be understood.
func invalid(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	var wrong *usageError
	if err == nil {
		return exitOK
	}
	if errors.As(err, &wrong) {
		return exitValidation
	}
	switch statusOf(err) {
	case http.StatusUnauthorized:
		return exitAuthentication
	case http.StatusForbidden:
		return exitAuthorization
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return exitValidation
	}
	return exitGeneral
}

// statusOf answers the HTTP status of an answer, or of a failure that never
// travelled; 0 for any other.
func statusOf(err error) int {
	var refused *client.Error
	var failed *fault.Error
	switch {
	case errors.As(err, &refused) && refused.Status != 0:
		return refused.Status
	case errors.As(err, &refused):
		return fault.Status(refused.Code)
	case errors.As(err, &failed):
		return fault.Status(failed.Code)
	}
	return 0
}

// fail tells a person what went wrong and what to do next.
func (a *app) fail(err error) {
	text := err.Error()
	var refused *client.Error
	var failed *fault.Error
	if errors.As(err, &failed) {
		text = failed.Message
	}
	if errors.As(err, &refused) {
		text = refused.Message
		if refused.RequestID != "" {
			text += fmt.Sprintf(" (%s, %s)", refused.Code, refused.RequestID)
		}
	}
	a.say("%s", text)
	if h := a.hint(err); h != "" {
		a.say("hint: %s", h)
	}
}

func (a *app) hint(err error) string {
	var wrong *usageError
	var unreached *url.Error
	switch {
	case errors.As(err, &wrong) && wrong.line != "":
		return fmt.Sprintf("use: %s; more with: %s --help", wrong.line, wrong.command)
	case errors.As(err, &wrong):
		return ""
	case errors.As(err, &unreached):
		return "is the server running there? SCAIVAULT_URL or --url says where; one to try things with: scaivault dev"
	}
	for _, h := range hints {
		if errors.Is(err, h.code) {
			return h.text
		}
	}
	switch exitCode(err) {
	case exitAuthentication:
		return "log in: scaivault auth login"
	case exitAuthorization:
		return "see who you are and what your token is for: scaivault auth whoami"
	}
	return ""
}

// hints name the next command for what can be helped with one.
var hints = []struct { //nolint:gochecknoglobals // a table
	code client.Code
	text string
}{
	{client.TokenExpired, "the token's time is over; log in again: scaivault auth login"},
	{client.AccessDenied, "no policy allows it; see why: scaivault policies test IDENTITY PATH PERMISSION"},
	{client.InsufficientScope, "the token is not made for this; see its scopes: scaivault auth whoami"},
	{client.EngineNotFound, "see what there is: scaivault dynamic engines list"},
	{client.RoleNotFound, "see what there is: scaivault dynamic roles list ENGINE"},
	{client.LeaseNotFound, "see what there is: scaivault dynamic leases list"},
	{client.SecretNotFound, "see what there is: scaivault secrets list; a deleted one comes back with: scaivault secrets undelete PATH"},
	{client.PolicyNotFound, "see what there is: scaivault policies list"},
	{client.RotationPolicyNotFound, "see what there is: scaivault rotation policies list"},
	{client.SecretPolicyNotFound, "see what there is: scaivault secret-policies list"},
	{client.EngineInUse, "see who: scaivault dynamic leases list --engine ENGINE; --force revokes them first"},
	{client.RoleInUse, "see who: scaivault dynamic leases list --engine ENGINE --role ROLE; --force revokes them first"},
	{client.SecretExists, "it was deleted and can come back: scaivault secrets undelete PATH; or end it for good: scaivault secrets delete --hard PATH"},
	{client.VersionConflict, "somebody wrote meanwhile; see the versions: scaivault secrets versions PATH"},
	{client.EngineUnavailable, "look at the source: scaivault dynamic engines health ENGINE"},
	{client.EngineError, "look at the source: scaivault dynamic engines health ENGINE; try a role: scaivault dynamic roles test ENGINE ROLE"},
	{client.MaxTTLReached, "its life cannot be longer; take a fresh one: scaivault dynamic creds ENGINE ROLE"},
	{client.LeaseExpired, "it is over; take a fresh one: scaivault dynamic creds ENGINE ROLE"},
	{client.LeaseRevoked, "revoked is final; take a fresh one: scaivault dynamic creds ENGINE ROLE"},
	{fault.PolicyInUse, "it is bound; --force ends its bindings, too"},
	{fault.SecretInUse, "an engine logs in with it; see which: scaivault dynamic engines list"},
}
