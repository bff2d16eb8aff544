package secret

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	secretsList  = "secrets"
	versionsList = "versions"

	// chunk is how many rows one snapshot reads; scanned bounds what one request looks at, so
	// that a caller who may list nothing cannot make the server read everything.
	chunk   = 500
	scanned = 10_000
)

// Filter selects what is listed.
type Filter struct {
	Prefix    string     // of whole segments
	Deleted   bool       // also deleted ones that can be brought back
	DueBefore *time.Time // only those that expire, or are to be rotated, before this moment
}

// due tells whether the secret's time ends before the moment asked for.
func (f Filter) due(sec *store.Secret) bool {
	before := func(t *time.Time) bool { return t != nil && t.Before(*f.DueBefore) }
	return f.DueBefore == nil || before(sec.ExpiresAt) || before(sec.RotateAt)
}

// List shows the secrets that the caller may list. A page may hold fewer than its size and still go
// on.
func (s *Service) List(ctx context.Context, c *access.Caller, only Filter, p page.Request) (*api.SecretList, error) {
	prefix := strings.TrimSuffix(only.Prefix, "/")
	if prefix != "" && !pathPattern.MatchString(prefix) {
		return nil, fault.New(fault.InvalidPath, "read the prefix: write segments of a-z, 0-9, - and _ with single slashes between them")
	}
	after, err := p.After(secretsList)
	if err != nil {
		return nil, err
	}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Path: prefix, Category: access.CategorySecretWrite,
		Any: []access.Right{{Scope: access.ScopeSecretsList}}})
	if err != nil {
		return nil, err
	}
	only.Prefix = prefix
	list, err := s.list(ctx, c, only, after, p)
	return list, pass.Record(ctx, err)
}

func (s *Service) list(ctx context.Context, c *access.Caller, only Filter, after string, p page.Request) (*api.SecretList, error) {
	list := &api.SecretList{Secrets: []api.SecretListItem{}}
	for range scanned / chunk {
		var rows []*store.Secret
		var now time.Time
		err := s.store.Read(ctx, func(r store.Reader) (err error) {
			now = r.Now()
			rows, err = r.Secrets(c.Tenant, only.Prefix, after, chunk)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, sec := range rows {
			after = sec.Path
			if sec.DeletedAt != nil && !only.Deleted || !only.due(sec) || !s.listable(c, sec.Path) {
				continue
			}
			list.Secrets = append(list.Secrets, s.item(sec, now))
			if len(list.Secrets) > p.Size() {
				list.Secrets, list.Page = page.Cut(p, secretsList, list.Secrets, func(i api.SecretListItem) string { return i.Path })
				return list, nil
			}
		}
		if len(rows) < chunk {
			return list, nil
		}
	}
	list.Page = page.Next(secretsList, after)
	return list, nil
}

func (s *Service) item(sec *store.Secret, now time.Time) api.SecretListItem {
	return api.SecretListItem{Path: sec.Path, SecretType: sec.Type, Version: sec.Version, UpdatedAt: sec.UpdatedAt,
		ExpiresAt: sec.ExpiresAt, DeletedAt: sec.DeletedAt, RotationState: s.state(sec, now), NextRotationAt: sec.RotateAt}
}

func (s *Service) listable(c *access.Caller, path string) bool {
	return s.door.Allowed(c, access.Right{Scope: access.ScopeSecretsList, Permission: permList, Path: path})
}

func versionKey(v api.SecretVersion) string { return strconv.Itoa(v.Version) }

// versionCursor is the version that the page stays below, 0 for none.
func versionCursor(p page.Request) (int, error) {
	key, err := p.After(versionsList)
	if err != nil || key == "" {
		return 0, err
	}
	n, err := strconv.Atoi(key)
	if err != nil || n < 1 {
		return 0, fault.New(fault.InvalidCursor, "read the cursor: it is not one that this list gave; begin again without it")
	}
	return n, nil
}
