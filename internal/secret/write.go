package secret

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/rotation"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// Write stores a new version. Metadata and options that are absent stay as they are; a lifetime
// counts from each new version. With cas it is refused unless that is the current version.
func (s *Service) Write(ctx context.Context, c *access.Caller, path string, req *api.SecretWrite) (*api.Secret, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	pass, err := s.door.Admit(ctx, c, ask("write", path, access.ScopeSecretsWrite, permWrite, access.CategorySecretWrite))
	if err != nil {
		return nil, err
	}
	if err := checkWrite(req); err != nil {
		return nil, pass.Record(ctx, err)
	}
	var a *api.Secret
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		sec, d, err := s.open(tx, c.Tenant, path)
		if err != nil {
			return err
		}
		if err := checkCAS(req.Options, sec.Version); err != nil {
			return err
		}
		if req.SecretType != "" || sec.Type == "" {
			sec.Type = orKV(req.SecretType)
		}
		if err := checkData(sec.Type, req.Data); err != nil {
			return err
		}
		if req.Metadata != nil {
			d.Metadata = *req.Metadata
		}
		if err := d.apply(pass, cfg, path, req.Options); err != nil {
			return err
		}
		if err := s.add(tx, cfg, sec, d, req.Data, c.Identity); err != nil {
			return err
		}
		pass.Set("version", sec.Version)
		a = s.answer(sec, d, tx.Now())
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.Announce(c.Tenant, path, a.Version)
	return a, nil
}

// open is the secret that a write goes to: what is there, or a new one. One that was deleted keeps
// its path until its retention ends, so that it can be brought back.
func (s *Service) open(tx store.Tx, tenant, path string) (*store.Secret, *document, error) {
	sec, err := tx.Secret(tenant, path)
	if fault.CodeOf(err) == fault.SecretNotFound {
		return fresh(tx, tenant, path)
	}
	if err != nil {
		return nil, nil, err
	}
	if sec.DeletedAt != nil {
		if tx.Now().Before(*sec.RecoverableUntil) {
			return nil, nil, fault.New(fault.SecretExists,
				"write the secret: a deleted one at this path can still be brought back; undelete it, or delete it with permanent=true first").
				With("recoverable_until", sec.RecoverableUntil.Format(time.RFC3339))
		}
		if err := s.destroy(tx, tenant, path); err != nil {
			return nil, nil, err
		}
		return fresh(tx, tenant, path)
	}
	d, err := decode(sec)
	return sec, d, err
}

func fresh(tx store.Tx, tenant, path string) (*store.Secret, *document, error) {
	return &store.Secret{Tenant: tenant, Path: path, CreatedAt: tx.Now()}, &document{MaxVersions: defaultVersions}, nil
}

// add seals the data as the next version, makes it the current one, and drops what is too old.
func (s *Service) add(tx store.Tx, cfg *store.Config, sec *store.Secret, d *document, data map[string]json.RawMessage, by string) error {
	plaintext, err := json.Marshal(data)
	if err != nil {
		return fault.New(fault.InvalidRequest, "read the secret's data: they are no JSON").Because(err)
	}
	now := tx.Now()
	sec.Versions++
	sec.Version, sec.UpdatedAt, sec.ExpiresAt = sec.Versions, now, nil
	if d.ExpiresIn > 0 {
		end := now.Add(d.ExpiresIn.Std())
		sec.ExpiresAt = &end
	}
	sealed, err := s.keys.Encrypt(place(sec.Tenant, sec.Path, sec.Version), plaintext)
	if err != nil {
		return err
	}
	err = tx.PutSecretVersion(&store.SecretVersion{Tenant: sec.Tenant, Path: sec.Path, Version: sec.Version,
		Sealed: sealed, CreatedAt: now, CreatedBy: by})
	if err != nil {
		return err
	}
	d.Rotation = &turn{Since: now}
	d.schedule(cfg, sec, now)
	return s.save(tx, sec, d)
}

// save writes the secret's state and drops the versions beyond max_versions, but for pinned ones.
func (s *Service) save(tx store.Tx, sec *store.Secret, d *document) error {
	var err error
	if sec.Doc, err = encode(d); err != nil {
		return err
	}
	if err := tx.PutSecret(sec); err != nil {
		return err
	}
	versions, err := tx.SecretVersions(sec.Tenant, sec.Path)
	if err != nil || len(versions) <= d.MaxVersions {
		return err
	}
	var pinned []int
	if s.hooks.Pinned != nil {
		pinned = s.hooks.Pinned(tx, sec.Tenant, sec.Path)
	}
	for _, v := range versions {
		if kept(sec, d, v.Version) || slices.Contains(pinned, v.Version) {
			continue
		}
		if err := tx.DeleteSecretVersion(sec.Tenant, sec.Path, v.Version); err != nil {
			return err
		}
	}
	return nil
}

// kept tells whether a version is among the newest max_versions.
func kept(sec *store.Secret, d *document, version int) bool {
	return version <= sec.Versions && version > sec.Versions-d.MaxVersions
}

// apply takes over the options that are given. Who assigns a rotation policy lets the server rotate,
// so that they must be allowed to.
func (d *document) apply(pass *access.Pass, cfg *store.Config, path string, o *api.SecretOptions) error {
	if o == nil {
		return nil
	}
	if o.MaxVersions != nil {
		d.MaxVersions = *o.MaxVersions
	}
	if o.ExpiresIn != nil {
		d.ExpiresIn = *o.ExpiresIn
	}
	if o.RotationPolicyID == "" || o.RotationPolicyID == d.RotationPolicyID {
		return nil
	}
	if err := pass.Check(access.Right{Scope: access.ScopeSecretsRotate, Permission: permRotate, Path: path}); err != nil {
		return err
	}
	if _, _, err := rotation.Find(cfg, pass.Caller().Tenant, o.RotationPolicyID); err != nil {
		return err
	}
	d.RotationPolicyID = o.RotationPolicyID
	return nil
}

func checkCAS(o *api.SecretOptions, current int) error {
	if o == nil || o.CAS == nil || *o.CAS == current {
		return nil
	}
	return fault.New(fault.VersionConflict,
		"write the secret: version %d was expected and %d is current; read it again", *o.CAS, current).
		With("current_version", current)
}

// Patch changes metadata and options. No new version is made, so that nobody reopens a source.
func (s *Service) Patch(ctx context.Context, c *access.Caller, path string, req *api.SecretPatch) (*api.Secret, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	pass, err := s.door.Admit(ctx, c, ask("write", path, access.ScopeSecretsWrite, permWrite, access.CategorySecretWrite))
	if err != nil {
		return nil, err
	}
	pass.Set("change", "metadata")
	if err := checkOptions(req.Options); err != nil {
		return nil, pass.Record(ctx, err)
	}
	var a *api.Secret
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		sec, err := live(tx, c.Tenant, path)
		if err != nil {
			return err
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		if err := checkCAS(req.Options, sec.Version); err != nil {
			return err
		}
		if m := req.Metadata; m != nil {
			set(&d.Metadata.Description, m.Description)
			set(&d.Metadata.Tags, m.Tags)
			set(&d.Metadata.Owner, m.Owner)
		}
		if err := checkMetadata(&d.Metadata); err != nil {
			return err
		}
		assigned := d.RotationPolicyID
		if err := d.apply(pass, cfg, path, req.Options); err != nil {
			return err
		}
		now := tx.Now()
		if d.RotationPolicyID != assigned {
			d.Rotation = &turn{Since: now}
			d.schedule(cfg, sec, now)
		}
		if o := req.Options; o != nil && o.ExpiresIn != nil {
			end := now.Add(o.ExpiresIn.Std())
			sec.ExpiresAt = &end
		}
		sec.UpdatedAt = now
		if err := s.save(tx, sec, d); err != nil {
			return err
		}
		a = s.answer(sec, d, now)
		return nil
	})
	if err == nil {
		s.scheduled()
	}
	return a, err
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// AddVersion writes a new version of a secret that exists, in a transaction of the caller's, who
// has asked the door for it and writes the entry. When it is durable, Announce tells of it.
func (s *Service) AddVersion(tx store.Tx, tenant, path string, data map[string]statement.Secret, by string) (int, error) {
	sec, err := live(tx, tenant, path)
	if err != nil {
		return 0, err
	}
	d, err := decode(sec)
	if err != nil {
		return 0, err
	}
	texts, err := plain(data)
	if err != nil {
		return 0, err
	}
	err = s.add(tx, s.store.Config(), sec, d, texts, by)
	return sec.Version, err
}

// Create makes a secret with its first version, in a transaction of the caller's, who has asked the door
// for it and writes the entry: secret_exists when there is one at the path. When it is durable, Announce
// tells of it.
func (s *Service) Create(tx store.Tx, tenant, path string, data map[string]statement.Secret, by string) (int, error) {
	if err := CheckPath(path); err != nil {
		return 0, err
	}
	sec, d, err := s.open(tx, tenant, path)
	if err != nil {
		return 0, err
	}
	if sec.Version > 0 {
		return 0, fault.New(fault.SecretExists, "write the secret: there is one at %s already", path)
	}
	sec.Type = typeKV
	texts, err := plain(data)
	if err != nil {
		return 0, err
	}
	err = s.add(tx, s.store.Config(), sec, d, texts, by)
	return sec.Version, err
}

// plain are fields as they are sealed.
func plain(data map[string]statement.Secret) (map[string]json.RawMessage, error) {
	texts := make(map[string]json.RawMessage, len(data))
	for name, value := range data {
		text, err := json.Marshal(value.Reveal())
		if err != nil {
			return nil, fault.New(fault.InternalError, "write the secret: internal error").Because(err)
		}
		texts[name] = text
	}
	return texts, nil
}

// Announce tells those who use the secret that it has a new version, and the scheduler.
func (s *Service) Announce(tenant, path string, version int) {
	s.scheduled()
	if s.hooks.Changed != nil {
		s.hooks.Changed(tenant, path, version)
	}
}
