package postgresql

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/statement"
)

// defaultRefresh is how old ON ALL grants of a group may be when a credential
// is issued.
const defaultRefresh = time.Minute

// The forms in which a statement gets the password.
const (
	passwordScram = "scram" // a verifier: the source never sees the password
	passwordPlain = "plain" // the text itself, which may end up in the source's log
)

// role is the engine's part of a role. It has one of two forms: privileges, of
// which a group role is made, or statements, which the operator wrote.
type role struct {
	CreationStatements   []string          `json:"creation_statements"`
	RevocationStatements []string          `json:"revocation_statements"`
	RenewStatements      []string          `json:"renew_statements"`
	Privileges           []string          `json:"privileges"`
	MemberOf             []string          `json:"member_of"`
	PasswordForm         string            `json:"password_form"`
	PrivilegesRefresh    duration.Duration `json:"privileges_refresh"`
	RunAsGroup           bool              `json:"run_as_group"`
	ReassignOwnedTo      string            `json:"reassign_owned_to"`

	creation *statement.SQL // nil in the privileges form
	grants   []grant
}

// parseRole decodes and checks a role.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	if r.PasswordForm == "" {
		r.PasswordForm = passwordScram
	}
	if r.PrivilegesRefresh == 0 {
		r.PrivilegesRefresh = duration.Duration(defaultRefresh)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	for _, check := range []struct {
		statements []string
		variables  []string
	}{
		{r.RevocationStatements, []string{"name", "role", "lease_id"}},
		{r.RenewStatements, []string{"name", "expiration", "role", "lease_id"}},
	} {
		if len(check.statements) == 0 {
			continue
		}
		if _, err := parseStatements(check.statements, check.variables...); err != nil {
			return nil, err
		}
	}
	if r.grouped() {
		var err error
		r.grants, err = parseGrants(r.Privileges)
		return r, err
	}
	return r, r.parseCreation()
}

// grouped tells whether the role is of the privileges form.
func (r *role) grouped() bool { return len(r.CreationStatements) == 0 }

func (r *role) check() error {
	statements := len(r.CreationStatements) > 0
	return engine.Rules{
		{!statements && len(r.Privileges)+len(r.MemberOf) == 0, "the role gives nothing: name privileges, member_of, or creation_statements"},
		{statements && len(r.Privileges)+len(r.MemberOf) > 0, "creation_statements contradict privileges and member_of: choose one form"},
		{statements && r.RunAsGroup, "run_as_group needs the privileges form, which has a group"},
		{!statements && len(r.RenewStatements) > 0, "renew_statements belong to creation_statements"},
		{r.PasswordForm != passwordScram && r.PasswordForm != passwordPlain, `password_form is neither "scram" nor "plain"`},
		{!statements && r.PasswordForm == passwordPlain, "password_form plain needs creation_statements: in the privileges form the source gets a verifier"},
		{slices.Contains(r.MemberOf, ""), "member_of holds an empty name"},
		{slices.ContainsFunc(r.MemberOf, isBuiltin), "member_of names a role of PostgreSQL's own (pg_...) that is more than reading: grant it by creation_statements if it must be"},
	}.Check()
}

// isBuiltin finds the predefined roles that give files, programs or the
// sessions of others; pg_read_all_data and its like are harmless in comparison.
func isBuiltin(name string) bool {
	return strings.HasPrefix(name, "pg_") && !slices.Contains([]string{
		"pg_read_all_data", "pg_write_all_data", "pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables", "pg_maintain",
	}, name)
}

func (r *role) parseCreation() error {
	var err error
	r.creation, err = parseStatements(r.CreationStatements, "name", "password", "expiration", "role", "lease_id")
	if err != nil {
		return err
	}
	if !r.creation.Uses("name") {
		return engine.Invalid("creation_statements never use {{name}}: what they make could not be revoked")
	}
	if r.PasswordForm == passwordScram && !r.creation.Uses("password") {
		return nil // an account that logs in by certificate or peer
	}
	return nil
}

// parseStatements joins a list of templates to one.
func parseStatements(statements []string, variables ...string) (*statement.SQL, error) {
	return statement.ParsePostgres(strings.Join(statements, ";\n"), variables...)
}
