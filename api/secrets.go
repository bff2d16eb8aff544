package api

import (
	"encoding/json"
	"time"
)

// SecretWrite stores a new version of a secret.
type SecretWrite struct {
	Data       map[string]json.RawMessage `json:"data"`
	SecretType string                     `json:"secret_type,omitempty"` // kv when absent
	Metadata   *SecretMetadata            `json:"metadata,omitempty"`
	Options    *SecretOptions             `json:"options,omitempty"`
}

// SecretPatch changes the metadata and options that are given; the data stay.
type SecretPatch struct {
	Metadata *SecretMetadataPatch `json:"metadata,omitempty"`
	Options  *SecretOptions       `json:"options,omitempty"`
}

// SecretMetadataPatch changes what is given; an empty text or list clears.
type SecretMetadataPatch struct {
	Description *string   `json:"description,omitempty"`
	Tags        *[]string `json:"tags,omitempty"`
	Owner       *string   `json:"owner,omitempty"`
}

// SecretMetadata describes a secret to people.
type SecretMetadata struct {
	Description string   `json:"description,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	Owner       string   `json:"owner,omitempty"`
}

// SecretOptions steer a secret's versions. CAS is the version that must be current, 0 for none.
type SecretOptions struct {
	MaxVersions      *int      `json:"max_versions,omitempty"` // 1 to 100, 10 when absent
	ExpiresIn        *Duration `json:"expires_in,omitempty"`
	RotationPolicyID string    `json:"rotation_policy_id,omitempty"`
	CAS              *int      `json:"cas,omitempty"`
}

// Secret is a secret's answer; Data only where it was read.
type Secret struct {
	Path             string                     `json:"path"`
	SecretType       string                     `json:"secret_type"`
	Version          int                        `json:"version"`
	Data             map[string]json.RawMessage `json:"data,omitempty"`
	Metadata         SecretMetadata             `json:"metadata"`
	MaxVersions      int                        `json:"max_versions,omitempty"`
	CreatedAt        time.Time                  `json:"created_at"`
	UpdatedAt        time.Time                  `json:"updated_at"`
	ExpiresAt        *time.Time                 `json:"expires_at"`
	Expired          bool                       `json:"expired,omitempty"`
	RotationPolicyID *string                    `json:"rotation_policy_id"`
	Rotation         *SecretRotation            `json:"rotation,omitempty"`
}

// SecretDeleted answers a soft deletion.
type SecretDeleted struct {
	Path             string    `json:"path"`
	DeletedAt        time.Time `json:"deleted_at"`
	RecoverableUntil time.Time `json:"recoverable_until"`
}

// SecretVersion is one version without its data.
type SecretVersion struct {
	Version    int        `json:"version"`
	CreatedAt  time.Time  `json:"created_at"`
	CreatedBy  string     `json:"created_by"`
	GraceUntil *time.Time `json:"grace_until"`
	Current    bool       `json:"current"`
}

// SecretVersionList lists the versions of a secret, newest first.
type SecretVersionList struct {
	Versions []SecretVersion `json:"versions"`
	Page
}

// SecretListItem is a line of a list; it holds no data.
type SecretListItem struct {
	Path       string     `json:"path"`
	SecretType string     `json:"secret_type"`
	Version    int        `json:"version"`
	UpdatedAt  time.Time  `json:"updated_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	DeletedAt  *time.Time `json:"deleted_at,omitempty"`
	// Of a secret with a rotation policy.
	RotationState  string     `json:"rotation_state,omitempty"`
	NextRotationAt *time.Time `json:"next_rotation_at,omitempty"`
}

// SecretList is a page of secrets.
type SecretList struct {
	Secrets []SecretListItem `json:"secrets"`
	Page
}

// SecretBatchRequest reads up to 100 secrets at once.
type SecretBatchRequest struct {
	Paths []string `json:"paths"`
}

// SecretBatch answers each path with the secret or with why not, in the order asked for.
type SecretBatch struct {
	Secrets []SecretBatchItem `json:"secrets"`
}

// SecretBatchItem is one path's answer.
type SecretBatchItem struct {
	Path   string       `json:"path"`
	Secret *Secret      `json:"secret,omitempty"`
	Error  *ErrorDetail `json:"error,omitempty"`
}
