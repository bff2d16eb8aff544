package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/test/pgtest"
)

const (
	database   = "support"
	rootSecret = "infra/postgres/support/root"
)

// play is the whole demo, from top to bottom.
func (d *demo) play() {
	d.dir = d.tempDir()

	d.step("Start a private PostgreSQL on this machine, with a database that holds one table.")
	pg := pgtest.Start(d, 0)
	pg.Exec(d, "CREATE ROLE app")
	pg.Exec(d, "CREATE DATABASE "+database)
	pg.ExecIn(d, database, "CREATE TABLE tickets AS SELECT i AS id, 'ticket ' || i AS title FROM generate_series(1, 3) AS i; ALTER TABLE tickets OWNER TO app")
	d.note("PostgreSQL %s listens on %s", pg.Version, pg.Addr())

	d.step("As its administrator, and once only: prepare it with the SQL that ScaiVault prints.")
	setup, _, code := d.command(d.environ(), "", "dynamic", "engines", "setup-sql", "postgresql", "--root", "scaivault", "--database", database, "--owner", "app")
	if code != 0 {
		d.Fatalf("no SQL was printed")
	}
	pg.ExecIn(d, database, string(setup))
	rootPassword := rand.Text()
	pg.Exec(d, fmt.Sprintf("ALTER ROLE scaivault PASSWORD '%s'", rootPassword))
	d.note("its user %q may now make users of ours, and is neither superuser nor CREATEROLE", "scaivault")

	d.step("Start ScaiVault: one program, its store in one folder.")
	d.startServer()
	d.note("$ scaivault dev --data DIR &")

	d.step("Give ScaiVault the root credential of the database, as a secret in its encrypted store.")
	d.doWith(d.admin, rootPassword, "secrets", "write", rootSecret, "username=scaivault", "password=-")

	d.step("Allow the engine support-db, and nobody else, to read it.")
	d.do("policies", "create", "support-db-root", "--allow", rootSecret+"=read")
	d.do("policies", "bind", "support-db-root", "dynamic:support-db")

	d.step("Make the engine. ScaiVault logs in at once: a wrong password or address would be refused here.")
	d.do("dynamic", "engines", "create", "support-db", "--plugin", "postgresql",
		"--connection-url", fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", pg.Addr(), database),
		"--root-secret", rootSecret, "--default-ttl", "1h", "--max-ttl", "24h")

	d.step("Make two roles: what a credential of each may do.")
	d.do("dynamic", "roles", "create", "support-db", "readonly",
		"--privilege", "USAGE ON SCHEMA public", "--privilege", "SELECT ON ALL TABLES IN SCHEMA public")
	d.do("dynamic", "roles", "create", "support-db", "readwrite",
		"--privilege", "USAGE ON SCHEMA public", "--privilege", "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public")

	d.step("Make a service account for a program, which may do one thing: have credentials of the role readonly.")
	account := read[api.ServiceAccount](d, d.do("auth", "service-accounts", "create", "reports",
		"--scope", "dynamic:generate,dynamic:read,secrets:read"))
	d.do("policies", "create", "reports", "--allow", "dynamic/support-db/readonly=dynamic:generate")
	d.do("policies", "bind", "reports", account.IdentityID)
	reports := d.environ("SCAIVAULT_URL="+envOf(d.admin, "SCAIVAULT_URL"),
		"SCAIVAULT_CLIENT_ID="+account.ClientID, "SCAIVAULT_CLIENT_SECRET="+account.ClientSecret)

	d.credential(pg, reports)
	d.limits(reports)
	d.prefix(pg)
	d.expiry(pg)

	d.step("Look at what was recorded, and prove that nobody changed it.")
	verified := read[api.AuditVerification](d, d.do("audit", "verify"))
	if !verified.OK {
		d.Fatalf("the audit trail does not verify: %+v", verified)
	}
	for _, chain := range verified.Chains {
		d.note("%d entries, each chained to the one before", chain.Entries)
	}
}

// credential follows one credential from its making to its death.
func (d *demo) credential(pg *pgtest.Server, reports []string) {
	d.step("As that program: ask for a credential. PostgreSQL gets a new user for it, at this moment.")
	cred := d.generate(reports, "readonly")
	d.note("PostgreSQL now has the user %s; it dies at %s", cred.Data["username"], cred.ExpiresAt.Format(time.RFC3339))

	d.step("Use it: a real query by the new user, on a connection that stays open.")
	conn := pg.Connect(d, cred.Data["username"], cred.Data["password"], database)
	var who string
	var tickets int
	if err := conn.QueryRow(d.ctx, "SELECT current_user, count(*) FROM tickets").Scan(&who, &tickets); err != nil {
		d.Fatalf("query as the new user: %v", err)
	}
	if who != cred.Data["username"] || tickets != 3 {
		d.Fatalf("%s counted %d tickets, want %s to count 3", who, tickets, cred.Data["username"])
	}
	d.note("%s counts %d tickets", who, tickets)
	if _, err := conn.Exec(d.ctx, "DELETE FROM tickets"); !hasCode(err, "42501") {
		d.Fatalf("deleting the tickets must be denied to it; PostgreSQL says: %v", err)
	}
	d.note("and may not delete them: permission denied")

	d.step("Renew it: the same user lives on, instead of a new one for every hour.")
	renewed := read[api.Lease](d, d.doWith(reports, "", "dynamic", "leases", "renew", cred.LeaseID, "--increment", "2h"))
	if !renewed.ExpiresAt.After(cred.ExpiresAt) {
		d.Fatalf("it was to live longer than until %s, and lives until %s", cred.ExpiresAt, renewed.ExpiresAt)
	}
	d.note("it now dies at %s", renewed.ExpiresAt.Format(time.RFC3339))

	d.step("Revoke it: dead at once, the open connection included.")
	d.doWith(reports, "", "dynamic", "leases", "revoke", cred.LeaseID)
	if _, err := conn.Exec(d.ctx, "SELECT 1"); err == nil {
		d.Fatalf("the open connection of the revoked user still works")
	}
	d.note("the connection that was open is cut")
	d.mustBeRefused(pg, cred)
	d.note("a new login is refused, and the user is gone from PostgreSQL")
}

// limits tries what the service account may not do.
func (d *demo) limits(reports []string) {
	d.step("The program may not have a credential of the other role.")
	d.refused(reports, []int{exitDenied}, "dynamic", "creds", "support-db", "readwrite")

	d.step("Nor read the root secret.")
	d.refused(reports, []int{exitDenied}, "secrets", "read", rootSecret)

	d.step("Nor see, renew or revoke somebody else's credential.")
	strangers := d.generate(d.admin, "readwrite")
	for _, what := range []string{"get", "renew", "revoke"} {
		d.refused(reports, []int{exitDenied, exitNotFound}, "dynamic", "leases", what, strangers.LeaseID)
	}
	d.do("dynamic", "leases", "revoke", strangers.LeaseID)
}

// prefix ends many credentials in one call.
func (d *demo) prefix(pg *pgtest.Server) {
	d.step("Something leaked? End all credentials of an engine in one call.")
	var all []api.Credential
	for _, role := range []string{"readonly", "readonly", "readwrite"} {
		cred := d.generate(d.admin, role)
		d.mustLogin(pg, cred)
		all = append(all, cred)
	}
	result := read[api.RevokeResult](d, d.do("dynamic", "leases", "revoke-prefix", "support-db"))
	if result.Matched != int64(len(all)) || result.Pending != 0 {
		d.Fatalf("%d were to be dead, and are: %+v", len(all), result)
	}
	for _, cred := range all {
		d.mustBeRefused(pg, cred)
	}
	d.note("%d of %d are dead: none of them logs in any more", result.Revoked, result.Matched)
}

// expiry lets a credential die by itself.
func (d *demo) expiry(pg *pgtest.Server) {
	d.step("Nobody gave it back? It dies by itself: here after 5 seconds.")
	cred := d.generate(d.admin, "readonly", "--ttl", "5s")
	d.mustLogin(pg, cred)
	d.note("it logs in now")
	d.eventually("the lease is over", func() bool {
		out, _, code := d.quiet(d.admin, "", "dynamic", "leases", "get", cred.LeaseID)
		return code == 0 && read[api.Lease](d, out).Status == api.LeaseRevoked
	})
	d.mustBeRefused(pg, cred)
	d.note("it is refused, and the user is gone from PostgreSQL")
}

func (d *demo) generate(env []string, role string, flags ...string) api.Credential {
	args := append([]string{"dynamic", "creds", "support-db", role}, flags...)
	return read[api.Credential](d, d.doWith(env, "", args...))
}

func (d *demo) mustLogin(pg *pgtest.Server, cred api.Credential) {
	conn, err := pgx.Connect(d.ctx, pg.URL(cred.Data["username"], cred.Data["password"], database))
	if err != nil {
		d.Fatalf("a fresh credential must log in; PostgreSQL says: %v", err)
	}
	_ = conn.Close(d.ctx)
}

// mustBeRefused wants PostgreSQL itself to refuse the login, and the user to be gone.
func (d *demo) mustBeRefused(pg *pgtest.Server, cred api.Credential) {
	user := cred.Data["username"]
	conn, err := pgx.Connect(d.ctx, pg.URL(user, cred.Data["password"], database))
	if err == nil {
		_ = conn.Close(d.ctx)
		d.Fatalf("%s is to be dead, and logs in", user)
	}
	if !hasCode(err, "28P01") && !hasCode(err, "28000") {
		d.Fatalf("%s is to be refused by PostgreSQL; instead: %v", user, err)
	}
	super, err := pgx.Connect(d.ctx, pg.SuperURL(database))
	if err != nil {
		d.Fatalf("look for the user: %v", err)
	}
	defer super.Close(d.ctx)
	var left int
	if err := super.QueryRow(d.ctx, "SELECT count(*) FROM pg_roles WHERE rolname = $1", user).Scan(&left); err != nil || left != 0 {
		d.Fatalf("the user %s is to be gone from PostgreSQL: %d left, %v", user, left, err)
	}
}

func hasCode(err error, code string) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == code
}
