package secret

import (
	"context"
	"encoding/json"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/rotation"
	"github.com/scaivault/scaivault/internal/store"
)

// Rotate replaces a secret's value by a generated one, or by the data given. The former version stays
// readable for the grace period. A secret that is an engine's root is rotated at its source. Of
// two at once one is refused with version_conflict.
func (s *Service) Rotate(ctx context.Context, c *access.Caller, path string, req *api.SecretRotate) (*api.Secret, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	pass, err := s.door.Admit(ctx, c, ask("rotate", path, access.ScopeSecretsRotate, permRotate, access.CategorySecretWrite))
	if err != nil {
		return nil, err
	}
	return s.rotate(ctx, pass, path, req)
}

// rotate rotates for who was let through. An error is recorded.
func (s *Service) rotate(ctx context.Context, pass *access.Pass, path string, req *api.SecretRotate) (*api.Secret, error) {
	if req.Data == nil && s.hooks.AtSource != nil {
		_, found, err := s.hooks.AtSource(ctx, pass, path)
		if err != nil {
			return nil, err
		}
		if found {
			return s.known(ctx, pass.Caller().Tenant, path)
		}
	}
	former, err := s.fetch(ctx, pass.Caller().Tenant, path, 0, visible)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	plan, err := s.plan(pass, former, req) // outside the transaction: a key takes a second to make
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	var a *api.Secret
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		sec, err := live(tx, pass.Caller().Tenant, path)
		if err != nil {
			return err
		}
		if sec.Version != former.Version {
			return fault.New(fault.VersionConflict, "rotate the secret: it got version %d meanwhile", sec.Version).
				With("current_version", sec.Version)
		}
		if plan.grace != nil {
			if err := endVersion(tx, sec, *plan.grace); err != nil {
				return err
			}
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		if err := s.add(tx, cfg, sec, d, plan.data, pass.Caller().Identity); err != nil {
			return err
		}
		pass.Set("version", sec.Version)
		a = s.answer(sec, d, tx.Now())
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.Announce(pass.Caller().Tenant, path, a.Version)
	return a, nil
}

// plan is what a rotation is going to write.
type plan struct {
	data  map[string]json.RawMessage
	grace *api.Duration // of the former version
}

func (s *Service) plan(pass *access.Pass, former *api.Secret, req *api.SecretRotate) (*plan, error) {
	tenant := pass.Caller().Tenant
	if req.CAS != nil && *req.CAS != former.Version {
		return nil, checkCAS(&api.SecretOptions{CAS: req.CAS}, former.Version)
	}
	next := &plan{data: req.Data, grace: req.GracePeriod}
	generator := req.SecretPolicyID
	if id := former.RotationPolicyID; id != nil {
		if p, _, err := rotation.Find(pass.Config(), tenant, *id); err == nil {
			if next.grace == nil {
				next.grace = p.GracePeriod
			}
			if generator == "" {
				generator = p.SecretPolicyID
			}
		}
	}
	if next.data == nil {
		if s.hooks.Generate == nil {
			return nil, fault.New(fault.InvalidRequest, "rotate the secret: give the data of its next version")
		}
		var err error
		if next.data, err = s.hooks.Generate(pass.Config(), tenant, generator, former.Data); err != nil {
			return nil, err
		}
	} else if err := checkWrite(&api.SecretWrite{Data: next.data}); err != nil {
		return nil, err
	}
	return next, checkData(former.SecretType, next.data)
}

// endVersion bounds how long the present version stays readable.
func endVersion(tx store.Tx, sec *store.Secret, grace api.Duration) error {
	v, err := tx.SecretVersion(sec.Tenant, sec.Path, sec.Version)
	if err != nil {
		return err
	}
	end := tx.Now().Add(grace.Std())
	v.GraceUntil = &end
	return tx.PutSecretVersion(v)
}

// known is what is known of a secret without its data, for who was let through.
func (s *Service) known(ctx context.Context, tenant, path string) (a *api.Secret, err error) {
	err = s.store.Read(ctx, func(r store.Reader) error {
		sec, err := live(r, tenant, path)
		if err != nil {
			return err
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		a = s.answer(sec, d, r.Now())
		return nil
	})
	return a, err
}

// Assign puts a secret under a rotation policy; its interval counts from now on. Idempotent.
func (s *Service) Assign(ctx context.Context, c *access.Caller, policyID, path string) (*api.Secret, error) {
	return s.reassign(ctx, c, "rotation_assign", policyID, path, func(cfg *store.Config, d *document) error {
		if _, _, err := rotation.Find(cfg, c.Tenant, policyID); err != nil {
			return err
		}
		d.RotationPolicyID = policyID
		return nil
	})
}

// Unassign takes a secret out of a rotation policy that it is under; secret_not_found when it is not.
func (s *Service) Unassign(ctx context.Context, c *access.Caller, policyID, path string) error {
	_, err := s.reassign(ctx, c, "rotation_unassign", policyID, path, func(cfg *store.Config, d *document) error {
		if _, _, err := rotation.Find(cfg, c.Tenant, policyID); err != nil {
			return err
		}
		if d.RotationPolicyID != policyID {
			return fault.New(fault.SecretNotFound, "find the secret: it is not assigned to this rotation policy")
		}
		d.RotationPolicyID = ""
		return nil
	})
	return err
}

func (s *Service) reassign(ctx context.Context, c *access.Caller, action, policyID, path string, fn func(cfg *store.Config, d *document) error) (*api.Secret, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	a := ask(action, path, access.ScopeSecretsRotate, permRotate, access.CategorySecretWrite)
	a.Extra = map[string]any{"rot": policyID}
	pass, err := s.door.Admit(ctx, c, a)
	if err != nil {
		return nil, err
	}
	var answer *api.Secret
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		sec, err := live(tx, c.Tenant, path)
		if err != nil {
			return err
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		was := d.RotationPolicyID
		if err := fn(cfg, d); err != nil {
			return err
		}
		now := tx.Now()
		if d.RotationPolicyID != was {
			d.Rotation = &turn{Since: now}
			d.schedule(cfg, sec, now)
			sec.UpdatedAt = now
			if err := s.save(tx, sec, d); err != nil {
				return err
			}
		}
		answer = s.answer(sec, d, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.scheduled()
	return answer, nil
}

const ofPolicyList = "rotation_secrets"

// OfPolicy lists the secrets of a rotation policy that the caller may list.
func (s *Service) OfPolicy(ctx context.Context, c *access.Caller, policyID string, p page.Request) (*api.SecretList, error) {
	after, err := p.After(ofPolicyList)
	if err != nil {
		return nil, err
	}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Category: access.CategoryPolicy, Any: []access.Right{
		{Scope: access.ScopePoliciesRead, Permission: permRead, Path: rotation.Path(s.store.Config(), c.Tenant, policyID)}}})
	if err != nil {
		return nil, err
	}
	list := &api.SecretList{Secrets: []api.SecretListItem{}}
	_, _, err = rotation.Find(pass.Config(), c.Tenant, policyID)
	for err == nil {
		var rows []*store.Secret
		err = s.store.Read(ctx, func(r store.Reader) (err error) {
			if rows, err = r.SecretsOfPolicy(c.Tenant, policyID, after, chunk); err != nil {
				return err
			}
			for _, sec := range rows {
				if sec.DeletedAt == nil && s.listable(c, sec.Path) {
					list.Secrets = append(list.Secrets, s.item(sec, r.Now()))
				}
				after = sec.Path
			}
			return nil
		})
		if len(rows) < chunk || len(list.Secrets) > p.Size() {
			break
		}
	}
	list.Secrets, list.Page = page.Cut(p, ofPolicyList, list.Secrets, func(i api.SecretListItem) string { return i.Path })
	return list, pass.Record(ctx, err)
}

// RotateAll has every secret of a rotation policy rotated now, by the scheduler, and tells how many.
// It takes the right to rotate each of them: else access_denied and nothing is done.
func (s *Service) RotateAll(ctx context.Context, c *access.Caller, policyID string) (*api.RotationRequested, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "rotate", Category: access.CategoryPolicy,
		Extra: map[string]any{"rot": policyID}, Any: []access.Right{
			{Scope: access.ScopeSecretsRotate, Permission: permWrite, Path: rotation.Path(s.store.Config(), c.Tenant, policyID)}}})
	if err != nil {
		return nil, err
	}
	if _, _, err := rotation.Find(pass.Config(), c.Tenant, policyID); err != nil {
		return nil, pass.Record(ctx, err)
	}
	a := &api.RotationRequested{}
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		a.Scheduled = 0
		secrets, err := tx.SecretsOfPolicy(c.Tenant, policyID, "", 0)
		if err != nil {
			return err
		}
		for _, sec := range secrets {
			if sec.DeletedAt != nil {
				continue
			}
			if err := pass.Check(access.Right{Scope: access.ScopeSecretsRotate, Permission: permRotate, Path: sec.Path}); err != nil {
				return err
			}
			if err := request(tx, cfg, sec.Path, c.Tenant); err != nil {
				return err
			}
			a.Scheduled++
		}
		pass.Set("count", a.Scheduled)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.scheduled()
	return a, nil
}

// request makes a secret due now.
func request(tx store.Tx, cfg *store.Config, path, tenant string) error {
	sec, err := live(tx, tenant, path)
	if err != nil {
		return err
	}
	d, err := decode(sec)
	if err != nil {
		return err
	}
	now := tx.Now()
	if d.Rotation == nil {
		d.Rotation = &turn{Since: sec.UpdatedAt}
	}
	d.Rotation.Requested = &now
	d.schedule(cfg, sec, now)
	if sec.Doc, err = encode(d); err != nil {
		return err
	}
	return tx.PutSecret(sec)
}
