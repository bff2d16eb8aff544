// Package secret keeps versioned secrets: sealed version by version, judged and recorded at the
// door like everything else. Engines read their root credentials here as identities of their own.
package secret

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	// retention is how long a soft-deleted secret can be brought back.
	retention = 30 * 24 * time.Hour

	defaultVersions = 10
	maxVersions     = 100
)

// Permissions of the contract on secret paths.
const (
	permRead   = "read"
	permWrite  = "write"
	permDelete = "delete"
	permList   = "list"
	permRotate = "rotate"
)

// Service is the operations on secrets. Safe for concurrent use.
type Service struct {
	store store.Store
	door  *access.Door
	keys  *seal.Keyring
	hooks Hooks
}

// Hooks join secrets to the engines that use them. Every field may be nil.
type Hooks struct {
	// InUse names the engines that use the secret: it is not deleted while any does.
	InUse func(cfg *store.Config, tenant, path string) []string
	// Pinned are versions that are still in use at a source: they are kept beyond max_versions.
	Pinned func(r store.Reader, tenant, path string) []int
	// Changed is told of each new version, once it is durable. It must not wait.
	Changed func(tenant, path string, version int)
	// AtSource rotates a secret that is the root of engines, at their source; found is false for
	// any other. An error is recorded.
	AtSource func(ctx context.Context, pass *access.Pass, path string) (version int, found bool, err error)
	// Generate makes the data of a next version out of the present ones, by a secret policy or, for
	// "", as a random password.
	Generate func(cfg *store.Config, tenant, policyID string, data map[string]json.RawMessage) (map[string]json.RawMessage, error)
	// Gone is told, in the transaction, of a secret that goes for good.
	Gone func(tx store.Tx, tenant, path string) error
	// Scheduled is told that some secret may have to be rotated sooner than was known.
	Scheduled func()
}

// New makes the service.
func New(st store.Store, door *access.Door, keys *seal.Keyring) *Service {
	return &Service{store: st, door: door, keys: keys}
}

// Join sets the hooks. It is called once, before the service is used.
func (s *Service) Join(h Hooks) { s.hooks = h }

// document is the part of a secret that is stored as JSON.
type document struct {
	Metadata         api.SecretMetadata `json:"metadata"`
	MaxVersions      int                `json:"max_versions"`
	ExpiresIn        api.Duration       `json:"expires_in,omitempty"` // of each new version
	RotationPolicyID string             `json:"rotation_policy_id,omitempty"`
	Rotation         *turn              `json:"rotation,omitempty"` // with a policy
}

func decode(sec *store.Secret) (*document, error) {
	d := &document{MaxVersions: defaultVersions}
	if err := json.Unmarshal(sec.Doc, d); err != nil {
		return nil, fault.New(fault.InternalError, "read the secret: what is stored is damaged").Because(err)
	}
	return d, nil
}

func encode(d *document) (json.RawMessage, error) {
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fault.New(fault.InternalError, "write the secret: internal error").Because(err)
	}
	return raw, nil
}

// answer is a secret as callers see it, without data.
func (s *Service) answer(sec *store.Secret, d *document, now time.Time) *api.Secret {
	a := &api.Secret{
		Path: sec.Path, SecretType: sec.Type, Version: sec.Version, Metadata: d.Metadata,
		MaxVersions: d.MaxVersions, CreatedAt: sec.CreatedAt, UpdatedAt: sec.UpdatedAt,
		ExpiresAt: sec.ExpiresAt, Expired: sec.ExpiresAt != nil && !now.Before(*sec.ExpiresAt),
	}
	if d.RotationPolicyID != "" {
		a.RotationPolicyID = &d.RotationPolicyID
		a.Rotation = s.rotation(sec, d, now)
	}
	return a
}

var pathPattern = regexp.MustCompile(`^[a-z0-9_-]+(/[a-z0-9_-]+)*$`)

// CheckPath applies the rules of secret paths.
func CheckPath(path string) error {
	switch {
	case len(path) > 512:
		return fault.New(fault.InvalidPath, "read the secret's path: it is longer than 512 characters")
	case !pathPattern.MatchString(path):
		return fault.New(fault.InvalidPath, "read the secret's path: write segments of a-z, 0-9, - and _ with single slashes between them")
	case strings.Count(path, "/") >= 10:
		return fault.New(fault.InvalidPath, "read the secret's path: it has more than 10 segments")
	}
	switch first, _, _ := strings.Cut(path, "/"); first {
	case "dynamic", "sys":
		return fault.New(fault.InvalidPath, "read the secret's path: %s/ is kept for the server's own paths; begin with another segment", first)
	}
	return nil
}

// ask is a request for one permission on one path.
func ask(action, path, scope, permission string, category access.Category) access.Ask {
	return access.Ask{Action: action, Path: path, Category: category,
		Any: []access.Right{{Scope: scope, Permission: permission, Path: path}}}
}

func notFound() error {
	return fault.New(fault.SecretNotFound, "find the secret: there is none at this path")
}

func noVersion() error {
	return fault.New(fault.VersionNotFound, "find the version: the secret has none of this number, or no longer")
}

// live is the secret, unless it is deleted.
func live(r store.Reader, tenant, path string) (*store.Secret, error) {
	sec, err := r.Secret(tenant, path)
	if err == nil && sec.DeletedAt != nil {
		return nil, notFound()
	}
	return sec, err
}

func place(tenant, path string, version int) seal.Place {
	return seal.Place{Tenant: tenant, Table: "secret", Path: path, Version: version}
}
