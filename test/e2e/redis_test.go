package e2e_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/redistest"
	"github.com/scaivault/scaivault/test/servertest"
)

// TestRedis is the life of credentials in Redis and in Valkey: sessions are dead
// when the revocation is answered, and so they stay when the server, or
// ScaiVault, is killed.
func TestRedis(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v, server := newVault(t), newRedis(t, kind)
			v.redisEngine(t, server)
			app := v.account(t, "app", "dynamic/cache/reader")

			c := v.issue(t, app, "cache", "reader", time.Minute)
			open := readsRedis(t, server, c)
			v.revoke(t, c)
			if err := open.Get(t.Context(), "app:one").Err(); err == nil {
				t.Error("an open session goes on after the revocation was answered")
			}
			mustBeRefused(t, server, c)

			longer := api.Duration(30 * time.Minute)
			kept := v.issue(t, app, "cache", "reader", time.Minute)
			if _, err := app.RenewLease(t.Context(), kept.lease, api.RenewRequest{Increment: &longer}); err != nil {
				t.Errorf("renew: %v", err)
			}
			if _, err := v.admin.RotateRoot(t.Context(), "cache"); err != nil {
				t.Errorf("rotate the root: %v", err)
			}
			server.Kill(t)
			server.Run(t)
			server.Do(t, "SET", "app:one", "1") // its data were in memory
			mustBeRefused(t, server, c)
			readsRedis(t, server, kept)

			short := v.issue(t, app, "cache", "reader", time.Second)
			v.Kill(t)
			time.Sleep(time.Until(short.expires))
			v.again(t)
			eventually(t, time.Minute, "who expired while ScaiVault was dead is refused", func() bool { return v.lease(t, short.lease).Status == api.LeaseRevoked })
			mustBeRefused(t, server, short)
			readsRedis(t, server, kept)
			v.revoke(t, kept)
			mustBeRefused(t, server, kept)
			if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
				t.Errorf("the audit chain does not verify: %+v, %v", report, err)
			}
			if h, err := v.admin.EngineHealth(t.Context(), "cache"); err != nil || h.Status != "healthy" || len(h.Warnings)+len(h.MissingGrants) > 0 {
				t.Errorf("health: %+v, %v", h, err)
			}
		})
	}
}

// TestRedisRefuses: a role that the server cannot make is refused when it is
// saved, with the rule that is wrong; so is a server that would forget.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	v, server := newVault(t), newRedis(t, redistest.Redis)
	v.redisEngine(t, server)
	for _, rule := range []string{"+@nosuch", "+nosuch", "nopass", "~", "(+get"} {
		_, err := v.admin.CreateRole(t.Context(), "cache", client.Document{"name": "bad", "acl_rules": []string{"+get", rule}})
		mustFail(t, rule, err, "invalid_config")
		if err != nil && !strings.Contains(err.Error(), rule) {
			t.Errorf("%s is not named: %v", rule, err)
		}
	}
	config, err := json.Marshal(map[string]string{"plugin": "redis", "connection_url": "redis://{{username}}:{{password}}@10.1.2.3:6379", "root_credentials_path": rootPath("cache")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "other", Type: "database", Config: config})
	mustFail(t, "a password in clear over a network", err, "invalid_config")
}

// TestRedisCluster: a node of a cluster that was away while a credential was revoked has the user when it is
// back, and refuses it within a minute; only then is the lease revoked.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	kinds := redistest.Kinds()
	for _, kind := range kinds[:min(size(1, len(kinds)), len(kinds))] {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v, set := newVault(t), redistest.StartCluster(t, kind, 3)
			var addresses []string
			for _, server := range set.Servers() {
				server.SetUp(t, "+cluster|nodes")
				addresses = append(addresses, server.Addr())
			}
			v.database(t, "cache", "redis", "redis://{{username}}:{{password}}@"+strings.Join(addresses, ","), servertest.GuideRoot)
			v.role(t, "cache", client.Document{"name": "reader", "acl_rules": []string{"~app:*", "+@read"}})
			app := v.account(t, "app", "dynamic/cache/reader")
			c, away := v.issue(t, app, "cache", "reader", time.Hour), set.Masters[1]
			away.Kill(t)
			if lease, err := v.admin.RevokeLease(t.Context(), c.lease, time.Second); err != nil || lease == nil {
				t.Fatalf("revoke while a node is away: %+v, %v", lease, err)
			}
			for _, server := range set.Servers() {
				if server != away {
					eventually(t, time.Minute, "the other nodes refuse it", func() bool { return refusedByRedis(t, server, c) })
				}
			}
			away.Run(t)
			back := time.Now()
			eventually(t, time.Minute, "the node that is back refuses it", func() bool { return refusedByRedis(t, away, c) })
			t.Logf("the node that was away refuses it %.1fs after its return", time.Since(back).Seconds())
			eventually(t, time.Minute, "the lease is revoked", func() bool { return v.lease(t, c.lease).Status == api.LeaseRevoked })
			for _, server := range set.Servers() {
				mustBeRefused(t, server, c)
			}
		})
	}
}

// newRedis is a server with the root of the guide and something to read.
func newRedis(t *testing.T, kind string) *redistest.Server {
	t.Helper()
	server := redistest.Start(t, kind)
	server.SetUp(t)
	server.Do(t, "SET", "app:one", "1")
	return server
}

func (v *vault) redisEngine(t *testing.T, server *redistest.Server) {
	t.Helper()
	v.database(t, "cache", "redis", "redis://{{username}}:{{password}}@"+server.Addr(), servertest.GuideRoot)
	v.role(t, "cache", client.Document{"name": "reader", "acl_rules": []string{"~app:*", "+@read"}})
}

// readsRedis reads as the credential, by a session that stays open.
func readsRedis(t *testing.T, server *redistest.Server, c credential) *redis.Client {
	t.Helper()
	session := server.Client(c.username, c.password)
	t.Cleanup(func() { _ = session.Close() })
	if one, err := session.Get(t.Context(), "app:one").Result(); err != nil || one != "1" {
		t.Fatalf("%s reads %q: %v", c.username, one, err)
	}
	var denied redis.Error
	if err := session.Set(t.Context(), "app:one", "2", 0).Err(); !errors.As(err, &denied) || !strings.HasPrefix(denied.Error(), "NOPERM") {
		t.Errorf("writing is not denied to a reader: %v", err)
	}
	return session
}

// refusedByRedis tells whether a server refuses the login.
func refusedByRedis(t *testing.T, server *redistest.Server, c credential) bool {
	t.Helper()
	session := server.Client(c.username, c.password)
	defer session.Close()
	err := session.Ping(t.Context()).Err()
	return err != nil && strings.Contains(err.Error(), "WRONGPASS")
}

func mustBeRefused(t *testing.T, server *redistest.Server, c credential) {
	t.Helper()
	if !refusedByRedis(t, server, c) {
		t.Errorf("%s is to be refused by the server", c.username)
	}
	for _, name := range server.Users(t) {
		if name == c.username {
			t.Errorf("the user %s is still there", c.username)
		}
	}
}
