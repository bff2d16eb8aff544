// Package api holds the types that travel over HTTP, shared by the server, the
// client and the command line. docs/api.md says what they mean.
package api

// ErrorBody is the answer to every request that failed.
type ErrorBody struct {
	Error ErrorDetail `json:"error"`
}

// ErrorDetail says what is wrong and what to do. Code is for programs and part
// of the contract; Message is for people and may change. RequestID is the one
// of the X-Request-ID header and of the audit entry.
type ErrorDetail struct {
	Code      string         `json:"code"`
	Message   string         `json:"message"`
	Details   map[string]any `json:"details,omitempty"`
	RequestID string         `json:"request_id"`
}
