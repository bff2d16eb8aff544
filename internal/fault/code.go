package fault

import "net/http"

// Code names one kind of failure on the wire, in the audit trail and in the
// client: docs/api.md, "Conventions". A code is itself an error, so that
// errors.Is(err, fault.LeaseExpired) tells what happened without a type
// assertion. Codes are part of the contract: they are added, never renamed.
type Code string

// Error makes a bare code usable as the target of errors.Is.
func (c Code) Error() string { return string(c) }

// What was sent is not acceptable.
const (
	InvalidRequest       Code = "invalid_request"
	InvalidPath          Code = "invalid_path"
	InvalidDuration      Code = "invalid_duration"
	InvalidCursor        Code = "invalid_cursor"
	InvalidPolicy        Code = "invalid_policy"
	InvalidGlob          Code = "invalid_glob"
	InvalidRole          Code = "invalid_role"
	InvalidConfig        Code = "invalid_config"
	InvalidSecretType    Code = "invalid_secret_type"
	ValidationError      Code = "validation_error"
	MethodNotAllowed     Code = "method_not_allowed"
	UnsupportedMediaType Code = "unsupported_media_type"
)

// Who is asking is not known.
const (
	AuthenticationRequired Code = "authentication_required"
	TokenInvalid           Code = "token_invalid"
	TokenExpired           Code = "token_expired"
	TokenRevoked           Code = "token_revoked"
)

// Who is asking is known and may not.
const (
	InsufficientScope   Code = "insufficient_scope"
	AccessDenied        Code = "access_denied"
	IPNotAllowed        Code = "ip_not_allowed"
	MFARequired         Code = "mfa_required"
	TimeWindowViolation Code = "time_window_violation"
	TenantAccessDenied  Code = "tenant_access_denied"
	Forbidden           Code = "forbidden"
)

// What was asked for is not there, or not visible to this tenant.
const (
	NotFound               Code = "not_found"
	EngineNotFound         Code = "engine_not_found"
	RoleNotFound           Code = "role_not_found"
	LeaseNotFound          Code = "lease_not_found"
	SecretNotFound         Code = "secret_not_found"
	VersionNotFound        Code = "version_not_found"
	PolicyNotFound         Code = "policy_not_found"
	BindingNotFound        Code = "binding_not_found"
	IdentityNotFound       Code = "identity_not_found"
	TokenNotFound          Code = "token_not_found"
	ServiceAccountNotFound Code = "service_account_not_found"
	IssuerNotFound         Code = "issuer_not_found"
	TenantNotFound         Code = "tenant_not_found"
	RotationPolicyNotFound Code = "rotation_policy_not_found"
	SecretPolicyNotFound   Code = "secret_policy_not_found"
	WebhookNotFound        Code = "webhook_not_found"
	DeliveryNotFound       Code = "delivery_not_found"
)

// What was asked for does not fit the present state.
const (
	EngineExists         Code = "engine_exists"
	RoleExists           Code = "role_exists"
	SecretExists         Code = "secret_exists"
	PolicyExists         Code = "policy_exists"
	BindingExists        Code = "binding_exists"
	TokenExists          Code = "token_exists"
	ServiceAccountExists Code = "service_account_exists"
	IssuerExists         Code = "issuer_exists"
	TenantExists         Code = "tenant_exists"
	RotationPolicyExists Code = "rotation_policy_exists"
	SecretPolicyExists   Code = "secret_policy_exists"
	WebhookExists        Code = "webhook_exists"
	PolicyInUse          Code = "policy_in_use"
	EngineInUse          Code = "engine_in_use"
	RoleInUse            Code = "role_in_use"
	SecretInUse          Code = "secret_in_use"
	VersionConflict      Code = "version_conflict"
	LeaseExpired         Code = "lease_expired"
	LeaseRevoked         Code = "lease_revoked"
	MaxTTLReached        Code = "max_ttl_reached"
	NotRenewable         Code = "not_renewable"
	LeaseQuotaExceeded   Code = "lease_quota_exceeded"
)

// The request was right and could not be served now.
const (
	RateLimited        Code = "rate_limited"
	InternalError      Code = "internal_error"
	EngineError        Code = "engine_error"       // the source refused
	EngineUnavailable  Code = "engine_unavailable" // the source cannot be reached
	ServiceUnavailable Code = "service_unavailable"
)

// Status is the one table from codes to HTTP statuses. A code that it does not
// know is answered 500, so that a forgotten line is seen.
func Status(c Code) int {
	switch c {
	case InvalidRequest, InvalidPath, InvalidDuration, InvalidCursor, InvalidPolicy,
		InvalidGlob, InvalidRole, InvalidConfig, InvalidSecretType:
		return http.StatusBadRequest

	case AuthenticationRequired, TokenInvalid, TokenExpired, TokenRevoked:
		return http.StatusUnauthorized

	case InsufficientScope, AccessDenied, IPNotAllowed, MFARequired,
		TimeWindowViolation, TenantAccessDenied, Forbidden:
		return http.StatusForbidden

	case NotFound, EngineNotFound, RoleNotFound, LeaseNotFound, SecretNotFound,
		VersionNotFound, PolicyNotFound, BindingNotFound, IdentityNotFound,
		TokenNotFound, ServiceAccountNotFound, IssuerNotFound, TenantNotFound,
		RotationPolicyNotFound, SecretPolicyNotFound, WebhookNotFound, DeliveryNotFound:
		return http.StatusNotFound

	case MethodNotAllowed:
		return http.StatusMethodNotAllowed

	case EngineExists, RoleExists, SecretExists, PolicyExists, BindingExists,
		TokenExists, ServiceAccountExists, IssuerExists, TenantExists,
		RotationPolicyExists, SecretPolicyExists, WebhookExists,
		PolicyInUse, EngineInUse, RoleInUse, SecretInUse, VersionConflict,
		LeaseExpired, LeaseRevoked, MaxTTLReached, NotRenewable, LeaseQuotaExceeded:
		return http.StatusConflict

	case UnsupportedMediaType:
		return http.StatusUnsupportedMediaType

	case ValidationError:
		return http.StatusUnprocessableEntity

	case RateLimited:
		return http.StatusTooManyRequests

	case EngineError:
		return http.StatusBadGateway

	case EngineUnavailable, ServiceUnavailable:
		return http.StatusServiceUnavailable

	default:
		return http.StatusInternalServerError
	}
}
