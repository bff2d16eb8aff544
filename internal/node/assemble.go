package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine/aws"
	"github.com/scaivault/scaivault/engine/builtin"
	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/clock"
	"github.com/scaivault/scaivault/internal/dial"
	"github.com/scaivault/scaivault/internal/identity"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/metrics"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/rotation"
	"github.com/scaivault/scaivault/internal/sandbox"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/secret"
	"github.com/scaivault/scaivault/internal/server"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/witness"
)

// parts are what a node is made of.
type parts struct {
	store     store.Store
	keys      *seal.Keyring
	identity  *identity.Service
	metrics   *metrics.Metrics
	server    *server.Server
	tokenFile *tokenFile
}

// assemble opens the store and puts everything on top of it, in the order of who needs whom.
func (n *Node) assemble(ctx context.Context, o Options, metricsListener net.Listener) (*parts, error) {
	opened, key, keys, err := openStore(ctx, n.config, n.log)
	if err != nil {
		return nil, err
	}
	n.onClose(func(context.Context) error { return opened.Close() })
	if s, ok := opened.(*sqlite.Store); ok {
		n.loop(func(ctx context.Context) { n.watchDisk(ctx, s) })
	}
	nameKey, err := keys.NameKey()
	if err != nil {
		return nil, err
	}
	auditKey, err := keys.AuditKey()
	if err != nil {
		return nil, err
	}
	p := &parts{keys: keys, metrics: metrics.New(), tokenFile: newTokenFile(n.config.DataDir, n.log)}
	guard := clock.New(clock.Config{Store: timed{opened, p.metrics}, Logger: n.log})
	if err := guard.Open(ctx); err != nil {
		return nil, err
	}
	p.store = guard
	door := access.New(access.Config{Store: p.store, Limits: n.config.RateLimits, Logger: n.log,
		BootstrapUsed: p.tokenFile.remove})

	box := sandbox.New(sandbox.Self())
	n.onClose(func(context.Context) error { box.Close(); return nil })
	programs, err := custom.NewHost(n.config.ProgramsDir, n.config.ProgramsUser, box)
	if err != nil {
		return nil, err
	}
	programs.ScriptHosts, programs.ScriptNetworks = n.config.ScriptHosts, n.config.ScriptNetworks
	ambient, err := aws.NewHost(n.config.AmbientAWS, n.config.AmbientAWSEngines, os.Getenv)
	if err != nil {
		return nil, err
	}
	secrets := secret.New(p.store, door, keys)
	sources := source.New(source.Config{
		Store: p.store, Door: door, Secrets: secrets, Keys: keys, EndBindings: access.EndBindings, Types: append(builtin.Types(programs, ambient), o.Engines...),
		Namer: statement.NewNamer(p.store.Installation(), nameKey, nil), Dial: n.dialer(metricsListener).DialContext, Logger: n.log,
	})
	leases := lease.New(lease.Config{Store: p.store, Clock: guard, Door: door, Sources: sources, Metrics: p.metrics, Logger: n.log})
	sources.SetRevoker(leases)
	guard.Join(door, leases.Kick)
	policies := rotation.New(p.store, door, keys)
	rotations := rotation.NewScheduler(p.store, secrets, p.metrics, n.log)
	secrets.Join(secret.Hooks{InUse: sources.Uses, Pinned: sources.Pinned, Gone: sources.ForgetRoot,
		AtSource: sources.RotateSecret, Generate: policies.Next, Scheduled: rotations.Kick,
		Changed: func(string, string, int) { sources.SecretChanged() }})
	p.identity = identity.New(identity.Config{Store: p.store, Door: door, Leases: leases, Logger: n.log})
	trail := audit.New(audit.Config{Store: p.store, Door: door, Chain: audit.Chain(auditKey), Logger: n.log})

	observer := witness.New(witness.Config{Store: p.store, Door: door, File: witnessFile(n.config), Resumed: leases.Kick, Logger: n.log})
	if err := observer.Start(ctx); err != nil {
		return nil, err
	}
	n.onClose(observer.Stop)
	p.metrics.Quarantine(func() bool { return quarantine.Active(p.store.Config()) })
	p.metrics.Clock(func() (api.Clock, bool) { return n.clockState(guard) })
	p.metrics.Engines(func() []metrics.EngineState { return n.engineStates(sources) })
	p.metrics.RotationQueue(func() float64 { return n.rotationQueue(rotations) })
	p.server = server.New(server.Config{
		Services: server.Services{Secrets: secrets, Rotation: policies, Sources: sources, Leases: leases, Identities: p.identity,
			Policies: access.NewPolicies(p.store, door), Audit: trail, Witness: observer, Clock: guard},
		Door: door, Metrics: p.metrics, Logger: n.log,
		System: server.System{Version: o.Version, Commit: o.Commit, Node: p.store.Node(), Epoch: p.store.Epoch(),
			Checks:  map[string]func(context.Context) error{"store": p.store.Ping, "seal": sealCheck(p.store, key)},
			Inspect: inspect(door), Rotation: rotations.Health,
			Engines: func(ctx context.Context, c *access.Caller) ([]api.EngineSummary, error) {
				return sources.Summaries(ctx, c.Tenant)
			},
		},
	})

	n.onClose(func(context.Context) error { n.stopLoops(); n.loops.Wait(); return nil })
	for _, run := range []func(context.Context){door.Run, guard.Run, p.identity.Run, trail.Run, observer.Run,
		(&retention{p.store, secrets, n.config.LeaseRetention, n.config.AuditRetention, n.log}).run} {
		n.loop(run)
	}
	for _, setting := range n.config.AuditSinks {
		sink, err := audit.OpenSink(setting)
		if err != nil {
			return nil, err
		}
		n.loop((&audit.Shipper{Store: p.store, Sink: sink, Logger: n.log}).Run)
	}
	n.onClose(func(context.Context) error { sources.Close(); return nil })
	leases.Start()
	if n.config.DatabaseURL != "" {
		n.loop(func(ctx context.Context) { lookEvery(ctx, leases) })
	}
	n.onClose(func(context.Context) error { leases.Stop(); return nil })
	rotations.Start()
	n.onClose(func(context.Context) error { rotations.Stop(); return nil })
	return p, nil
}

// watchDisk ends the node when the disk under the embedded store has failed: what the store holds is
// only known when it is opened anew.
func (n *Node) watchDisk(ctx context.Context, s *sqlite.Store) {
	select {
	case err := <-s.Failed():
		n.failed <- fmt.Errorf("keep the store: %w", err)
	case <-ctx.Done():
	}
}

// lookAround is how often a node of a shared store looks for work that others left: leases that a
// node which died made since this one looked last, and claims that became void.
const lookAround = 2 * time.Second

func lookEvery(ctx context.Context, leases *lease.Manager) {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			leases.Kick()
		case <-ctx.Done():
			return
		}
	}
}

// dialer is the one way to sources: databases live on private networks, but never at an address
// of this server.
func (n *Node) dialer(others ...net.Listener) *dial.Dialer {
	var own []netip.AddrPort
	for _, l := range append(others, n.listener) {
		if l == nil {
			continue
		}
		if a, err := netip.ParseAddrPort(l.Addr().String()); err == nil {
			own = append(own, a)
		}
	}
	return &dial.Dialer{Policy: dial.Policy{Private: true, Unix: true, Own: own}}
}

// sealCheck proves that the seal still opens what the store holds.
func sealCheck(st store.Store, key *seal.File) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		var keyring []byte
		err := st.Read(ctx, func(r store.Reader) (err error) {
			keyring, err = r.Meta(seal.MetaKey)
			return err
		})
		if err != nil {
			return err
		}
		return seal.Check(ctx, key, keyring)
	}
}

// inspect admits to the node's detailed state: scope admin, and read on sys/health.
func inspect(door *access.Door) func(ctx context.Context, c *access.Caller) error {
	return func(ctx context.Context, c *access.Caller) error {
		const path = "sys/health"
		pass, err := door.Admit(ctx, c, access.Ask{Action: "system_health", Path: path, Category: access.CategorySystem,
			Any: []access.Right{{Scope: access.ScopeAdmin, Permission: "read", Path: path}}})
		if err != nil {
			return err
		}
		return pass.Record(ctx, nil)
	}
}

// scrapeTimeout bounds what a scrape of the metrics may ask of the store.
const scrapeTimeout = 5 * time.Second

// rotationQueue counts the secrets whose value was to be replaced by now.
func (n *Node) rotationQueue(rotations *rotation.Scheduler) float64 {
	ctx, cancel := context.WithTimeout(n.loopsCtx, scrapeTimeout)
	defer cancel()
	behind, err := rotations.Health(ctx)
	if err != nil {
		n.log.Error("metrics: count the secrets to be rotated", "error", err)
	}
	return float64(behind.Overdue)
}

func (n *Node) clockState(guard *clock.Guard) (api.Clock, bool) {
	ctx, cancel := context.WithTimeout(n.loopsCtx, scrapeTimeout)
	defer cancel()
	c, err := guard.State(ctx)
	if err != nil {
		n.log.Error("metrics: compare the clocks", "error", err)
		return api.Clock{}, false
	}
	return *c, true
}

func (n *Node) engineStates(sources *source.Service) []metrics.EngineState {
	ctx, cancel := context.WithTimeout(n.loopsCtx, scrapeTimeout)
	defer cancel()
	engines, err := sources.Summaries(ctx, store.DefaultTenant)
	if err != nil {
		n.log.Error("metrics: read the engines' states", "error", err)
		return nil
	}
	states := make([]metrics.EngineState, 0, len(engines))
	for _, e := range engines {
		states = append(states, metrics.EngineState{Engine: e.Engine, Healthy: e.Status == api.EngineHealthy,
			Active: e.ActiveLeases, Overdue: e.RevocationBacklog, Orphans: e.Orphans, Residues: e.Residues})
	}
	return states
}
