package source

import (
	"context"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// Secrets is what a source needs of the secrets: secret.Service.
type Secrets interface {
	// ReadAs reads as an internal identity, through the door.
	ReadAs(ctx context.Context, c *access.Caller, path string) (map[string]statement.Secret, int, error)
	// VersionAs is ReadAs of one version, also of one that is kept because it is pinned.
	VersionAs(ctx context.Context, c *access.Caller, path string, version int) (map[string]statement.Secret, int, error)
	// AddVersion writes a new version in the caller's transaction; Announce tells of it after.
	AddVersion(tx store.Tx, tenant, path string, data map[string]statement.Secret, by string) (int, error)
	Announce(tenant, path string, version int)
	// Create makes a secret in the caller's transaction: secret_exists where there is one.
	Create(tx store.Tx, tenant, path string, data map[string]statement.Secret, by string) (int, error)
}

// Sealer seals what is kept outside the secrets: seal.Keyring.
type Sealer interface {
	Encrypt(at seal.Place, plaintext []byte) ([]byte, error)
	Decrypt(at seal.Place, sealed []byte) ([]byte, error)
}

// Revoker ends the leases of a scope; the lease manager is one.
type Revoker interface {
	// Fence revokes all of the fence's scope, in the caller's transaction.
	Fence(tx store.Tx, f *store.Fence) error
	// Await marks what the fence covers and waits until all of it is dead, at most wait.
	Await(ctx context.Context, f *store.Fence, wait time.Duration) (api.RevokeResult, error)
}

// Bindings ends what is bound to an identity, in the caller's transaction.
type Bindings func(tx store.Tx, tenant, identity string) error

// Config of a Service.
type Config struct {
	Store       store.Store
	Door        *access.Door
	Secrets     Secrets
	Keys        Sealer
	EndBindings Bindings
	Types       []engine.Type
	Namer       *statement.Namer
	Dial        func(ctx context.Context, network, address string) (net.Conn, error)
	Logger      *slog.Logger
}

// Service administers engines and roles. Safe for concurrent use.
type Service struct {
	store       store.Store
	door        *access.Door
	secrets     Secrets
	keys        Sealer
	endBindings Bindings
	leases      Revoker
	types       map[string]engine.Type
	typeNames   []string
	namer       *statement.Namer
	dial        func(ctx context.Context, network, address string) (net.Conn, error)
	log         *slog.Logger
	configs     sync.Map // *parsed by engine id

	mu    sync.Mutex
	lives map[string]*live // by engine id
}

// New makes the service. SetRevoker completes it.
func New(c Config) *Service {
	s := &Service{store: c.Store, door: c.Door, secrets: c.Secrets, keys: c.Keys, endBindings: c.EndBindings,
		types: map[string]engine.Type{}, namer: c.Namer, dial: c.Dial, log: c.Logger, lives: map[string]*live{}}
	for _, t := range c.Types {
		s.types[t.Name()] = t
		s.typeNames = append(s.typeNames, t.Name())
	}
	sort.Strings(s.typeNames)
	return s
}

// SetRevoker gives the service the lease manager, which needs the service itself to be made.
func (s *Service) SetRevoker(r Revoker) { s.leases = r }

// Uses names the engines that use a secret.
func (s *Service) Uses(cfg *store.Config, tenant, path string) (names []string) {
	for _, o := range cfg.List(tenant, store.KindEngine, "") {
		e, err := s.engine(o)
		if err == nil && (e.Config.RootCredentialsPath == path || slices.Contains(e.Config.SecretPaths, path)) {
			names = append(names, e.Name)
		}
	}
	return names
}

// Pinned are the versions of a root secret that sources still use or would be opened with again.
func (s *Service) Pinned(r store.Reader, tenant, path string) (versions []int) {
	cfg := s.store.Config()
	for _, name := range s.Uses(cfg, tenant, path) {
		e, err := s.Engine(cfg, tenant, name)
		if err != nil {
			continue
		}
		if former, err := formerRoots(r, e); err == nil {
			versions = append(versions, former...)
		}
		l := s.liveOf(e)
		l.mu.Lock()
		if l.now != nil {
			versions = append(versions, l.now.root)
		}
		l.mu.Unlock()
	}
	return versions
}

// Patience is how long a request may take that works at the engine's source.
func (s *Service) Patience(tenant, engineName string) time.Duration {
	const rest = 5 * time.Second
	e, err := s.Engine(s.store.Config(), tenant, engineName)
	if err != nil {
		return 15*time.Second + rest
	}
	return e.Config.OperationTimeout + rest
}

// nameForm is the form of engine and role names: they are a segment of virtual paths.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// ValidName tells whether s may name an engine or a role.
func ValidName(s string) bool { return nameForm.MatchString(s) }

// manage is the right to administer an engine ("") or one of its roles.
func manage(engineName, role string) access.Right {
	path := "dynamic/" + engineName
	if role != "" {
		path += "/" + role
	}
	return access.Right{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: path}
}

// read is the right to see an engine or a role.
func read(engineName, role string) access.Right {
	r := manage(engineName, role)
	r.Scope, r.Permission = access.ScopeDynamicRead, "dynamic:read"
	return r
}

// living counts the engine's leases that are not revoked, of one role or of all ("").
func living(r store.Reader, engineID, role string) (n int64, err error) {
	counts, err := r.LeaseCounts(engineID)
	for _, c := range counts {
		if c.Status != api.LeaseRevoked && (role == "" || c.Role == role) {
			n += c.N
		}
	}
	return n, err
}

// Living is living for other rooms: what counts against quotas and keeps an engine in use.
func Living(r store.Reader, engineID, role string) (int64, error) { return living(r, engineID, role) }

// CheckMetadata bounds what a caller may have kept beside an engine, a role or a lease.
func CheckMetadata(m map[string]string) error {
	if len(m) > 64 {
		return fault.New(fault.InvalidRequest, "metadata has more than 64 entries")
	}
	for k, v := range m {
		if k == "" || len(k) > 64 || len(v) > 1024 {
			return fault.New(fault.InvalidRequest, "a metadata key has 1 to 64 characters and its value at most 1024")
		}
	}
	return nil
}
