package server

import (
	"net/http"
	"strings"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// published is a public read of a document that hosts fetch over and over: it has an entity tag, by which
// who holds the present one is answered 304. No cache between may answer in the server's place: it would
// add its age to the time in which a revocation takes effect.
func published(pattern, contentType, doc string, h func(c *call) (body []byte, tag string, err error)) route {
	rt := raw(pattern, contentType, doc, nil).or(http.StatusNotModified)
	rt.handle = func(c *call) error {
		if err := c.noBody(); err != nil {
			return err
		}
		body, tag, err := h(c)
		if err != nil {
			return c.withheld(err)
		}
		header := c.w.Header()
		header.Set("Cache-Control", "no-cache")
		header.Set("ETag", tag)
		if holds(c.r.Header["If-None-Match"], tag) {
			c.w.send(c.ctx, http.StatusNotModified, "", nil)
			return nil
		}
		return c.write(body)
	}
	return rt
}

// withheld is what anybody may know of a document that is not there now. Why it is not names secrets and
// policies: that is for the log.
func (c *call) withheld(err error) error {
	switch fault.CodeOf(err) {
	case fault.EngineNotFound, fault.TenantNotFound:
		return err
	}
	c.w.logger.Warn("a public document cannot be had", "request_id", c.w.origin.RequestID, "reason", err)
	return fault.New(fault.ServiceUnavailable, "the document cannot be had now: the log of the server has why under this request id").Because(err)
}

// holds tells whether an If-None-Match names the tag.
func holds(headers []string, tag string) bool {
	for _, header := range headers {
		for one := range strings.SplitSeq(header, ",") {
			one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
			if one == "*" || one == tag {
				return true
			}
		}
	}
	return false
}

// strangersTenant is the tenant that somebody without a token asks for.
func (c *call) strangersTenant() (string, error) {
	tenant := c.r.PathValue("tenant_id")
	if tenant == "" {
		tenant = c.r.Header.Get("X-Tenant-Id")
	}
	if tenant != "" && tenant != store.DefaultTenant {
		return "", fault.New(fault.TenantNotFound, "find the tenant: there is none of this id that you may see")
	}
	return store.DefaultTenant, nil
}

func (s *Server) sshPublicKey(c *call) ([]byte, string, error) {
	tenant, err := c.strangersTenant()
	if err != nil {
		return nil, "", err
	}
	keys, err := s.Sources.PublicKeys(c.ctx, tenant, c.path("engine"))
	return keys, api.EntityTag(keys), err
}

func (s *Server) sshKRL(c *call) ([]byte, string, error) {
	tenant, err := c.strangersTenant()
	if err != nil {
		return nil, "", err
	}
	list, err := s.Leases.RevocationList(c.ctx, tenant, c.path("engine"))
	return list.Body, list.Tag, err
}

func (s *Server) sshVerify(c *call, req *api.SSHVerifyRequest) (*api.SSHVerification, error) {
	used, err := s.Leases.Verify(c.ctx, c.caller, c.path("engine"),
		engine.Presented{Secret: statement.Secret(req.OTP), Username: req.Username, Address: req.IP, Client: req.ClientIP})
	if err != nil {
		return nil, err
	}
	return &api.SSHVerification{Valid: true, Username: req.Username, IP: req.IP, Role: used.Role, LeaseID: used.LeaseID}, nil
}
