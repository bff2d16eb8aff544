package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
)

// Code names a kind of failure and is itself an error, so that it can be given
// to errors.Is. The list is that of docs/api.md.
type Code = fault.Code

// The codes that a program is likely to react to.
const (
	AccessDenied           = fault.AccessDenied
	AuthenticationRequired = fault.AuthenticationRequired
	EngineError            = fault.EngineError
	EngineInUse            = fault.EngineInUse
	EngineNotFound         = fault.EngineNotFound
	EngineUnavailable      = fault.EngineUnavailable
	InsufficientScope      = fault.InsufficientScope
	InvalidConfig          = fault.InvalidConfig
	InvalidDuration        = fault.InvalidDuration
	InvalidPath            = fault.InvalidPath
	InvalidRequest         = fault.InvalidRequest
	LeaseExpired           = fault.LeaseExpired
	LeaseNotFound          = fault.LeaseNotFound
	LeaseQuotaExceeded     = fault.LeaseQuotaExceeded
	LeaseRevoked           = fault.LeaseRevoked
	MaxTTLReached          = fault.MaxTTLReached
	NotFound               = fault.NotFound
	NotRenewable           = fault.NotRenewable
	PolicyNotFound         = fault.PolicyNotFound
	RotationPolicyNotFound = fault.RotationPolicyNotFound
	SecretPolicyNotFound   = fault.SecretPolicyNotFound
	RateLimited            = fault.RateLimited
	RoleInUse              = fault.RoleInUse
	RoleNotFound           = fault.RoleNotFound
	SecretExists           = fault.SecretExists
	SecretNotFound         = fault.SecretNotFound
	ServiceUnavailable     = fault.ServiceUnavailable
	TokenExpired           = fault.TokenExpired
	TokenInvalid           = fault.TokenInvalid
	TokenRevoked           = fault.TokenRevoked
	ValidationError        = fault.ValidationError
	VersionConflict        = fault.VersionConflict

	// UnexpectedAnswer is not from the wire: what answered speaks no ScaiVault,
	// mostly a proxy, or the URL is wrong.
	UnexpectedAnswer Code = "unexpected_answer"
)

// Error is a request that the server refused or could not serve.
type Error struct {
	Status     int            // of HTTP
	Code       Code           // for programs
	Message    string         // for people
	Details    map[string]any // limits and names
	RequestID  string         // of the audit entry
	RetryAfter time.Duration  // zero where the server named none
}

// Error is the message, with the request id by which the server's log and audit
// trail know it.
func (e *Error) Error() string {
	if e.RequestID == "" {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: %s (%s)", e.Code, e.Message, e.RequestID)
}

// Is matches the code.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Temporary tells whether the same request may succeed later.
func (e *Error) Temporary() bool { return e.Status == http.StatusTooManyRequests || e.Status >= 500 }

// errorOf reads the error envelope, or the form of RFC 6749 section 5.2 that a
// gateway in front of the token endpoint may answer.
func errorOf(answer *http.Response, body []byte) *Error {
	e := &Error{
		Status:     answer.StatusCode,
		RequestID:  answer.Header.Get("X-Request-ID"),
		RetryAfter: retryAfter(answer.Header),
	}
	var envelope struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
	}
	var detail api.ErrorDetail
	if json.Unmarshal(body, &envelope) == nil {
		if json.Unmarshal(envelope.Error, &detail) != nil {
			_ = json.Unmarshal(envelope.Error, &detail.Code)
			detail.Message = envelope.Description
		}
	}
	if detail.Code == "" {
		e.Code = UnexpectedAnswer
		e.Message = fmt.Sprintf("the answer %d is not one of a ScaiVault server; is the URL right?", answer.StatusCode)
		return e
	}
	e.Code, e.Message, e.Details = Code(detail.Code), detail.Message, detail.Details
	if detail.RequestID != "" {
		e.RequestID = detail.RequestID
	}
	return e
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// decode reads a successful answer. Unknown fields are accepted: a newer server
// may say more.
func decode(answer *http.Response, body []byte, into any) error {
	if raw, ok := into.(*[]byte); ok {
		*raw = body
		return nil
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return &Error{
			Status:    answer.StatusCode,
			Code:      UnexpectedAnswer,
			Message:   "the answer is not the JSON document that was expected; is the URL right, and is the server newer?",
			RequestID: answer.Header.Get("X-Request-ID"),
		}
	}
	return nil
}
