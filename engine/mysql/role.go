package mysql

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// The forms in which a statement gets the password.
const (
	passwordHash  = "hash"  // the source never sees the password
	passwordPlain = "plain" // the text itself, which may end up in the source's logs
)

// maxHost is the longest host of an account.
const maxHost = 255

// role is the engine's part of a role. It has one of two forms: privileges, or
// statements, which the operator wrote.
type role struct {
	CreationStatements   []string `json:"creation_statements"`
	RevocationStatements []string `json:"revocation_statements"`
	RenewStatements      []string `json:"renew_statements"`
	Privileges           []string `json:"privileges"`
	Host                 string   `json:"host"`
	PasswordForm         string   `json:"password_form"`

	creation *statement.SQL // nil in the privileges form
	grants   []grant
}

// parseRole decodes and checks a role.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	declarative := len(r.CreationStatements) == 0
	if err := (engine.Rules{
		{declarative && len(r.Privileges) == 0, "the role gives nothing: name privileges or creation_statements"},
		{!declarative && len(r.Privileges) > 0, "creation_statements contradict privileges: choose one form"},
		{!declarative && r.Host != "", "host belongs to privileges: creation_statements name the host themselves"},
		{declarative && len(r.RenewStatements) > 0, "renew_statements belong to creation_statements"},
		{declarative && r.PasswordForm == passwordPlain, "password_form plain needs creation_statements: in the form privileges the source gets a hash"},
		{r.PasswordForm != "" && r.PasswordForm != passwordHash && r.PasswordForm != passwordPlain, `password_form is neither "hash" nor "plain"`},
		{len(r.Host) > maxHost || strings.IndexFunc(r.Host, notInHost) >= 0, "host is no pattern of hosts: letters, digits and . - _ % : / are"},
	}).Check(); err != nil {
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
	var err error
	if declarative {
		if r.Host == "" {
			r.Host = "%"
		}
		r.grants, err = parseGrants(r.Privileges)
		return r, err
	}
	r.creation, err = r.parseCreation()
	return r, err
}

func notInHost(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(".-_%:/", r))
}

func (r *role) declarative() bool { return r.creation == nil }

// passwordClause is how templates give an account its password, and hashClause how
// both kinds of servers take its hash.
var (
	passwordClause = regexp.MustCompile("(?i)(\\bIDENTIFIED)(?:\\s+WITH\\s+['\"`]?" + cachingPlugin + "['\"`]?)?\\s+BY\\s+(?:'{{password}}'|\"{{password}}\"|{{password}})")
	hashClause     = "${1} WITH {{auth_plugin}} AS '{{password}}'"
	// anyPassword is one that is taken for a hash where it stands.
	takenAsHash = regexp.MustCompile(`(?i)\b(?:AS|USING|BY\s+PASSWORD)\s+(?:'{{password}}'|"{{password}}"|{{password}})`)
)

// parseCreation reads the statements that make an account. As far as nothing else
// is asked for, the source gets a hash: IDENTIFIED BY becomes the clause that takes
// one.
func (r *role) parseCreation() (*statement.SQL, error) {
	templates := r.CreationStatements
	if r.PasswordForm != passwordPlain {
		templates = make([]string, len(r.CreationStatements))
		for i, t := range r.CreationStatements {
			templates[i] = passwordClause.ReplaceAllString(t, hashClause)
			if strings.Contains(takenAsHash.ReplaceAllString(templates[i], ""), "{{password}}") {
				return nil, engine.Invalid("creation_statements use {{password}} elsewhere than in IDENTIFIED BY '{{password}}', where a hash takes its place: set password_form to plain if the source may see the password, and show it in its logs")
			}
		}
	}
	sql, err := parseStatements(templates, "name", "password", "auth_plugin", "expiration", "role", "lease_id")
	if err == nil && !sql.Uses("name") {
		err = engine.Invalid("creation_statements never use {{name}}: what they make could not be revoked")
	}
	return sql, err
}

// parseStatements joins a list of templates to one.
func parseStatements(statements []string, variables ...string) (*statement.SQL, error) {
	return statement.ParseMySQL(strings.Join(statements, "\n;\n"), variables...)
}
