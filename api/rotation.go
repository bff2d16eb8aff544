package api

import (
	"encoding/json"
	"time"
)

// RotationPolicyRequest creates a rotation policy. The interval is given as interval or as
// interval_seconds: at least 10 seconds.
type RotationPolicyRequest struct {
	Name            string    `json:"name"`
	Description     string    `json:"description,omitempty"`
	Interval        *Duration `json:"interval,omitempty"`
	IntervalSeconds *int64    `json:"interval_seconds,omitempty"`
	GracePeriod     *Duration `json:"grace_period,omitempty"`  // absent: the former version stays readable
	WarnBefore      *Duration `json:"warn_before,omitempty"`   // shorter than the interval
	AutoGenerate    *bool     `json:"auto_generate,omitempty"` // true when absent
	SecretPolicyID  string    `json:"secret_policy_id,omitempty"`
	WebhookIDs      []string  `json:"webhook_ids,omitempty"`
	IsActive        *bool     `json:"is_active,omitempty"` // true when absent
}

// RotationPolicyPatch changes what is given; an empty secret_policy_id takes it away.
type RotationPolicyPatch struct {
	Name            *string   `json:"name,omitempty"`
	Description     *string   `json:"description,omitempty"`
	Interval        *Duration `json:"interval,omitempty"`
	IntervalSeconds *int64    `json:"interval_seconds,omitempty"`
	GracePeriod     *Duration `json:"grace_period,omitempty"`
	WarnBefore      *Duration `json:"warn_before,omitempty"`
	AutoGenerate    *bool     `json:"auto_generate,omitempty"`
	SecretPolicyID  *string   `json:"secret_policy_id,omitempty"`
	WebhookIDs      *[]string `json:"webhook_ids,omitempty"`
	IsActive        *bool     `json:"is_active,omitempty"`
}

// RotationPolicy says how often the values of its secrets are replaced, and how.
type RotationPolicy struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	Description     string    `json:"description"`
	Interval        Duration  `json:"interval"`
	IntervalSeconds int64     `json:"interval_seconds"`
	GracePeriod     *Duration `json:"grace_period"`
	WarnBefore      *Duration `json:"warn_before"`
	AutoGenerate    bool      `json:"auto_generate"`
	SecretPolicyID  *string   `json:"secret_policy_id"`
	WebhookIDs      []string  `json:"webhook_ids"`
	SecretsCount    int64     `json:"secrets_count"`
	IsActive        bool      `json:"is_active"`
	CreatedAt       time.Time `json:"created_at"`
	UpdatedAt       time.Time `json:"updated_at"`
}

// RotationPolicyList is a page of rotation policies.
type RotationPolicyList struct {
	Data []RotationPolicy `json:"data"`
	Page
}

// RotationAssignment assigns a secret to a rotation policy.
type RotationAssignment struct {
	SecretPath string `json:"secret_path"`
}

// RotationRequested answers a rotation of all secrets of a policy: how many are rotated now.
type RotationRequested struct {
	Scheduled int64 `json:"scheduled"`
}

// SecretRotate replaces a secret's value. Data absent: one is generated, by the secret policy given,
// else by that of the secret's rotation policy.
type SecretRotate struct {
	Data           map[string]json.RawMessage `json:"data,omitempty"`
	GracePeriod    *Duration                  `json:"grace_period,omitempty"`
	SecretPolicyID string                     `json:"secret_policy_id,omitempty"`
	CAS            *int                       `json:"cas,omitempty"`
}

// The states of a secret's rotation.
const (
	RotationScheduled = "scheduled" // its time has not come
	RotationDue       = "due"       // less than the policy's warn_before is left
	RotationOverdue   = "overdue"   // its time has passed
	RotationPaused    = "paused"    // the policy is disabled
)

// SecretRotation is where a secret stands with its rotation policy.
type SecretRotation struct {
	PolicyID       string     `json:"policy_id"`
	Policy         string     `json:"policy"` // its name
	State          string     `json:"state"`
	NextRotationAt *time.Time `json:"next_rotation_at"`
	Failures       int        `json:"failures,omitempty"` // in a row
	LastError      string     `json:"last_error,omitempty"`
}

// RotationHealth tells how far the rotations are behind.
type RotationHealth struct {
	Overdue              int64 `json:"overdue"` // secrets whose value was to be replaced by now
	OldestOverdueSeconds int64 `json:"oldest_overdue_seconds"`
}

// GeneratorParameters are what a generator is told; each takes only some of them.
type GeneratorParameters struct {
	Field    string   `json:"field,omitempty"`    // of the secret's data that gets the value
	Length   *int     `json:"length,omitempty"`   // random, bcrypt_hash: characters of the password, 32 when absent
	Classes  []string `json:"classes,omitempty"`  // random, bcrypt_hash: of upper, lower, digits, symbols
	Symbols  string   `json:"symbols,omitempty"`  // random, bcrypt_hash: those of the class symbols, "-_" when absent
	Bytes    *int     `json:"bytes,omitempty"`    // hex: random bytes, 32 when absent
	Template string   `json:"template,omitempty"` // template: text with {{random:N}}, {{hex:N}}, {{digits:N}}, {{lower:N}}, {{upper:N}}, {{uuid}}
	Bits     *int     `json:"bits,omitempty"`     // rsa_keypair, ssh_keypair of type rsa: 2048, 3072 or 4096, 3072 when absent
	Curve    string   `json:"curve,omitempty"`    // ec_keypair: P-256, P-384 or P-521, P-256 when absent
	KeyType  string   `json:"key_type,omitempty"` // ssh_keypair: ed25519 or rsa, ed25519 when absent
	Comment  string   `json:"comment,omitempty"`  // ssh_keypair: of the public key
	Cost     *int     `json:"cost,omitempty"`     // bcrypt_hash: 10 to 14, 12 when absent
	Value    string   `json:"value,omitempty"`    // static: never shown again
}

// SecretPolicyRequest creates a secret policy.
type SecretPolicyRequest struct {
	Name        string               `json:"name"`
	Description string               `json:"description,omitempty"`
	Generator   string               `json:"generator"`
	Parameters  *GeneratorParameters `json:"parameters,omitempty"`
}

// SecretPolicyPatch changes what is given; parameters replace all former ones.
type SecretPolicyPatch struct {
	Name        *string              `json:"name,omitempty"`
	Description *string              `json:"description,omitempty"`
	Generator   *string              `json:"generator,omitempty"`
	Parameters  *GeneratorParameters `json:"parameters,omitempty"`
}

// SecretPolicy says how values are generated.
type SecretPolicy struct {
	ID          string              `json:"id"`
	Name        string              `json:"name"`
	Description string              `json:"description"`
	Generator   string              `json:"generator"`
	Parameters  GeneratorParameters `json:"parameters"`
	CreatedAt   time.Time           `json:"created_at"`
	UpdatedAt   time.Time           `json:"updated_at"`
}

// SecretPolicyList is a page of secret policies.
type SecretPolicyList struct {
	SecretPolicies []SecretPolicy `json:"secret_policies"`
	Page
}

// SecretPreview asks for values of a generator that is not stored.
type SecretPreview struct {
	Generator  string               `json:"generator"`
	Parameters *GeneratorParameters `json:"parameters,omitempty"`
}

// GeneratedSecret is a fresh value, stored nowhere.
type GeneratedSecret struct {
	Data map[string]string `json:"data"`
}
