package lease

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/source"
)

// testLife is the life of a test's credential, should its revocation be late; less where the role
// allows less.
const testLife = api.Duration(time.Minute)

// TestRole is a dry run of a role: it issues, looks at and revokes one credential on the same way
// as every other, and reports each step. A step that fails is in the report, not an error.
func (m *Manager) TestRole(ctx context.Context, c *access.Caller, engineName, roleName string, wait time.Duration) (*api.RoleTest, error) {
	path := "dynamic/" + engineName + "/" + roleName
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_generate", Category: access.CategoryDynamicAdmin,
		Any:   []access.Right{{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: path}},
		Extra: map[string]any{"engine": engineName, "role": roleName, "test": true}})
	if err != nil {
		return nil, err
	}
	report := &api.RoleTest{Engine: engineName, Role: roleName, OK: true, Steps: []api.TestStep{}}
	step := func(name string, do func() error) bool {
		begun := time.Now()
		err := do()
		s := api.TestStep{Step: name, OK: err == nil, DurationMS: time.Since(begun).Milliseconds()}
		if err != nil {
			s.Error, report.OK = fault.From(err).Message, false
		}
		report.Steps = append(report.Steps, s)
		return err == nil
	}
	var made *api.Credential
	life, err := m.testLife(c.Tenant, engineName, roleName)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	issued := step("issue", func() (err error) {
		made, err = m.issue(ctx, pass, wish{engine: engineName, role: roleName, dryRun: true,
			CredsRequest: api.CredsRequest{TTL: &life, Metadata: map[string]string{"test": "true"}}})
		return err
	})
	if !issued {
		return report, nil
	}
	report.Username = made.Data["username"]
	step("verify", func() error { return m.verify(ctx, c, engineName, made.LeaseID) })
	step("revoke", func() error {
		done, forget := m.wait(made.LeaseID)
		defer forget()
		m.Undelivered(ctx, c.Tenant, made.LeaseID)
		pending, err := m.await(ctx, c.Tenant, made.LeaseID, done, wait)
		if err == nil && pending != nil && pending.Revocation.EffectiveAt == nil {
			err = fault.New(fault.EngineUnavailable, "not dead within %s, still being tried: %s", wait, pending.Revocation.LastError)
		}
		return err
	})
	return report, nil
}

// testLife is how long a test's credential lives at most.
func (m *Manager) testLife(tenant, engineName, roleName string) (api.Duration, error) {
	cfg := m.store.Config()
	e, err := m.sources.Engine(cfg, tenant, engineName)
	if err != nil {
		return 0, err
	}
	role, err := m.sources.Role(cfg, e, roleName)
	if err != nil {
		return 0, err
	}
	return min(testLife, api.Duration(role.MaxTTL)), nil
}

// verify looks at the source whether the credential of a lease exists and can be used.
func (m *Manager) verify(ctx context.Context, c *access.Caller, engineName, leaseID string) error {
	l, err := m.row(ctx, c.Tenant, leaseID)
	if err != nil {
		return err
	}
	e, err := m.sources.EngineByID(m.store.Config(), c.Tenant, l.EngineID)
	if err != nil {
		return err
	}
	h, err := m.sources.Acquire(ctx, e)
	if err != nil {
		return source.Fault(engineName, err)
	}
	defer h.Release()
	var found engine.Presence
	err = m.sources.Follow(ctx, e, h, func() (err error) {
		found, err = h.Lookup(ctx, l.Recipe)
		return err
	})
	if err != nil {
		return source.Fault(engineName, err)
	}
	if found.State != engine.Usable {
		return fault.New(fault.EngineError, "the account was made but cannot be used: look at the role's statements")
	}
	return nil
}
