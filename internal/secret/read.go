package secret

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// Read answers a version with its data, the current one for 0. The entry is durable before the
// data leave.
func (s *Service) Read(ctx context.Context, c *access.Caller, path string, version int) (*api.Secret, error) {
	return s.read(ctx, c, path, version, access.CategorySecretRead, visible)
}

func (s *Service) read(ctx context.Context, c *access.Caller, path string, version int, category access.Category, may visibility) (*api.Secret, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	pass, err := s.door.Admit(ctx, c, ask("read", path, access.ScopeSecretsRead, permRead, category))
	if err != nil {
		return nil, err
	}
	a, err := s.fetch(ctx, c.Tenant, path, version, may)
	if err == nil {
		pass.Set("version", a.Version)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return a, nil
}

// visibility tells whether a version that is still stored may be read.
type visibility func(sec *store.Secret, d *document, v *store.SecretVersion, now time.Time) bool

// visible is what callers may read: not past its grace period, not beyond max_versions.
func visible(sec *store.Secret, d *document, v *store.SecretVersion, now time.Time) bool {
	return kept(sec, d, v.Version) && (v.GraceUntil == nil || now.Before(*v.GraceUntil))
}

// stored is what an engine may read that still has a connection open with it.
func stored(*store.Secret, *document, *store.SecretVersion, time.Time) bool { return true }

func (s *Service) fetch(ctx context.Context, tenant, path string, version int, may visibility) (*api.Secret, error) {
	var a *api.Secret
	var v *store.SecretVersion
	err := s.store.Read(ctx, func(r store.Reader) error {
		sec, err := live(r, tenant, path)
		if err != nil {
			return err
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		if version == 0 {
			version = sec.Version
		}
		if v, err = r.SecretVersion(tenant, path, version); err != nil {
			return err
		}
		if !may(sec, d, v, r.Now()) {
			return noVersion()
		}
		a = s.answer(sec, d, r.Now())
		return nil
	})
	if err != nil {
		return nil, err
	}
	plaintext, err := s.keys.Decrypt(place(tenant, path, version), v.Sealed)
	if err != nil {
		return nil, err
	}
	a.Version = version
	if err := json.Unmarshal(plaintext, &a.Data); err != nil {
		return nil, fault.New(fault.InternalError, "read the secret: what is stored is damaged")
	}
	return a, nil
}

// ReadAs reads the current version in the name of the server itself (dynamic:<engine>): policy
// decides as for everybody. It answers the fields as texts.
func (s *Service) ReadAs(ctx context.Context, c *access.Caller, path string) (map[string]statement.Secret, int, error) {
	return s.VersionAs(ctx, c, path, 0)
}

// VersionAs is ReadAs of one version, also of one that is kept beyond max_versions because it is
// in use.
func (s *Service) VersionAs(ctx context.Context, c *access.Caller, path string, version int) (map[string]statement.Secret, int, error) {
	a, err := s.read(ctx, c, path, version, access.CategorySecretRead, stored)
	if err != nil {
		return nil, 0, err
	}
	fields := make(map[string]statement.Secret, len(a.Data))
	for name, raw := range a.Data {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw)
		}
		fields[name] = statement.Secret(text)
	}
	return fields, a.Version, nil
}

// Metadata answers a secret without its data.
func (s *Service) Metadata(ctx context.Context, c *access.Caller, path string) (*api.Secret, error) {
	var a *api.Secret
	err := s.inspect(ctx, c, path, func(r store.Reader, sec *store.Secret, d *document) error {
		a = s.answer(sec, d, r.Now())
		return nil
	})
	return a, err
}

// Versions lists the versions that can be read, newest first.
func (s *Service) Versions(ctx context.Context, c *access.Caller, path string, p page.Request) (*api.SecretVersionList, error) {
	before, err := versionCursor(p)
	if err != nil {
		return nil, err
	}
	list := &api.SecretVersionList{Versions: []api.SecretVersion{}}
	err = s.inspect(ctx, c, path, func(r store.Reader, sec *store.Secret, d *document) error {
		all, err := r.SecretVersions(c.Tenant, path)
		if err != nil {
			return err
		}
		for i := len(all) - 1; i >= 0; i-- {
			v := all[i]
			if (before == 0 || v.Version < before) && visible(sec, d, v, r.Now()) {
				list.Versions = append(list.Versions, api.SecretVersion{Version: v.Version, CreatedAt: v.CreatedAt,
					CreatedBy: v.CreatedBy, GraceUntil: v.GraceUntil, Current: v.Version == sec.Version})
			}
		}
		list.Versions, list.Page = page.Cut(p, versionsList, list.Versions, versionKey)
		return nil
	})
	return list, err
}

// inspect reads what is known of a secret without its data: for who may read or list it.
func (s *Service) inspect(ctx context.Context, c *access.Caller, path string, fn func(r store.Reader, sec *store.Secret, d *document) error) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "read", Path: path, Category: access.CategorySecretRead,
		Extra: map[string]any{"part": "metadata"}, Any: []access.Right{
			{Scope: access.ScopeSecretsRead, Permission: permRead, Path: path},
			{Scope: access.ScopeSecretsList, Permission: permList, Path: path},
		}})
	if err != nil {
		return err
	}
	err = s.store.Read(ctx, func(r store.Reader) error {
		sec, err := live(r, c.Tenant, path)
		if err != nil {
			return err
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		return fn(r, sec, d)
	})
	return pass.Record(ctx, err)
}

// maxBatch is how many secrets one request reads.
const maxBatch = 100

// Batch reads many secrets. Each is judged and recorded for itself, and answered with the secret
// or with why not.
func (s *Service) Batch(ctx context.Context, c *access.Caller, req *api.SecretBatchRequest) (*api.SecretBatch, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "read", Category: access.CategoryBatchRead,
		Any: []access.Right{{Scope: access.ScopeSecretsRead}}})
	if err != nil {
		return nil, err
	}
	if n := len(req.Paths); n == 0 || n > maxBatch {
		return nil, pass.Record(ctx, fault.New(fault.InvalidRequest, "read paths: name 1 to %d secrets", maxBatch))
	}
	batch := &api.SecretBatch{Secrets: make([]api.SecretBatchItem, len(req.Paths))}
	// All at once: their entries share the store's flushes to disk.
	var reads errgroup.Group
	for i, path := range req.Paths {
		one := *c
		reads.Go(func() error {
			item := api.SecretBatchItem{Path: path}
			var err error
			if item.Secret, err = s.read(ctx, &one, path, 0, uncounted, visible); err != nil {
				e := fault.From(err)
				item.Error = &api.ErrorDetail{Code: string(e.Code), Message: e.Message, Details: e.Details,
					RequestID: c.Origin.RequestID}
			}
			batch.Secrets[i] = item
			return nil
		})
	}
	return batch, reads.Wait()
}

// uncounted is for the parts of a request that was counted as a whole.
const uncounted access.Category = ""
