package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/mysqltest"
	"github.com/scaivault/scaivault/test/servertest"
)

// TestMySQL is the life of credentials in MariaDB and MySQL: sessions are dead when the
// revocation is answered, and so they stay when the server, or ScaiVault, is killed; no
// password is in a log of the source.
func TestMySQL(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v, server := newVault(t), newMySQL(t, kind)
			v.mysqlEngine(t, server)
			app := v.account(t, "app", "dynamic/shop/reader", "dynamic/shop/classic")

			passwords := []string{}
			for _, role := range []string{"reader", "classic"} {
				c := v.issue(t, app, "shop", role, time.Minute)
				open := readsMySQL(t, server, c)
				v.revoke(t, c)
				if open.PingContext(t.Context()) == nil {
					t.Error("an open session goes on after the revocation was answered")
				}
				mustBeGoneFromMySQL(t, server, c)
				passwords = append(passwords, c.password)
			}

			longer := api.Duration(30 * time.Minute)
			kept := v.issue(t, app, "shop", "reader", time.Minute)
			if _, err := app.RenewLease(t.Context(), kept.lease, api.RenewRequest{Increment: &longer}); err != nil {
				t.Errorf("renew: %v", err)
			}
			if _, err := v.admin.RotateRoot(t.Context(), "shop"); err != nil {
				t.Errorf("rotate the root: %v", err)
			}
			server.Restart(t)
			readsMySQL(t, server, kept)

			short := v.issue(t, app, "shop", "reader", time.Second)
			v.Kill(t)
			time.Sleep(time.Until(short.expires))
			v.again(t)
			eventually(t, time.Minute, "who expired while ScaiVault was dead is revoked", func() bool { return v.lease(t, short.lease).Status == api.LeaseRevoked })
			mustBeGoneFromMySQL(t, server, short)
			readsMySQL(t, server, kept)
			v.revoke(t, kept)
			mustBeGoneFromMySQL(t, server, kept)

			general, binary := server.Log(t)
			for _, password := range append(passwords, kept.password, short.password) {
				if strings.Contains(general, password) || strings.Contains(binary, password) {
					t.Error("a password is in a log of the source")
				}
			}
			if !strings.Contains(general, kept.username) || !strings.Contains(binary, kept.username) {
				t.Error("the logs do not hold what they must: this test looks at the wrong place")
			}
			if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
				t.Errorf("the audit chain does not verify: %+v, %v", report, err)
			}
			if h, err := v.admin.EngineHealth(t.Context(), "shop"); err != nil || h.Status != "healthy" || len(h.Warnings)+len(h.MissingGrants) > 0 {
				t.Errorf("health: %+v, %v", h, err)
			}
		})
	}
}

// TestMySQLRefuses: a role that the server cannot make is refused when it is saved, with
// the part that is wrong.
func TestMySQLRefuses(t *testing.T) {
	t.Parallel()
	v, server := newVault(t), newMySQL(t, mysqltest.MariaDB)
	v.mysqlEngine(t, server)
	for privilege, says := range map[string]string{
		"SELCT ON app.*": "SELCT", "SELECT ON orders": "schema", "DROP ON app.*": "GRANT DROP ON `app`.* TO", "SELECT ON app.nosuch": "nosuch",
	} {
		_, err := v.admin.CreateRole(t.Context(), "shop", client.Document{"name": "bad", "privileges": []string{privilege}})
		mustFail(t, privilege, err, "invalid_config")
		if err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %q is not said: %v", privilege, says, err)
		}
	}
}

// newMySQL is a server with the root of the guide and something to read.
func newMySQL(t *testing.T, kind string) *mysqltest.Server {
	t.Helper()
	server := mysqltest.Start(t, kind, mysqltest.WithArguments("--innodb-flush-log-at-trx-commit=1"))
	server.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.orders (id INT)", "INSERT INTO app.orders VALUES (1)")
	server.SetUp(t, servertest.GuideRoot, "app")
	return server
}

func (v *vault) mysqlEngine(t *testing.T, server *mysqltest.Server) {
	t.Helper()
	v.database(t, "shop", "mysql", "mysql://{{username}}:{{password}}@"+server.Addr()+"/", servertest.GuideRoot)
	v.role(t, "shop", client.Document{"name": "reader", "privileges": []string{"SELECT ON app.*"}})
	v.role(t, "shop", client.Document{"name": "classic", "creation_statements": []string{
		"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "GRANT SELECT ON app.* TO '{{name}}'@'%'"}})
}

// readsMySQL reads as the credential, by a session that stays open.
func readsMySQL(t *testing.T, server *mysqltest.Server, c credential) *mysqltest.Session {
	t.Helper()
	session, err := server.Login(t.Context(), c.username, c.password, "app")
	if err != nil {
		t.Fatalf("%s logs in: %v", c.username, err)
	}
	t.Cleanup(session.Close)
	var id int
	if err := session.QueryRowContext(t.Context(), "SELECT id FROM orders").Scan(&id); err != nil {
		t.Fatalf("%s reads: %v", c.username, err)
	}
	if _, err := session.ExecContext(t.Context(), "INSERT INTO orders VALUES (2)"); err == nil {
		t.Error("writing is not denied to a reader")
	}
	return session
}

func mustBeGoneFromMySQL(t *testing.T, server *mysqltest.Server, c credential) {
	t.Helper()
	if session, err := server.Login(t.Context(), c.username, c.password, ""); err == nil {
		session.Close()
		t.Errorf("%s logs in", c.username)
	}
	if server.Exists(t, c.username) {
		t.Errorf("the account %s is still there", c.username)
	}
}
