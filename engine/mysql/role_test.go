package mysql_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine/mysql"
	"github.com/scaivault/scaivault/internal/fault"
)

const createUser = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'"

func TestParseRole(t *testing.T) {
	t.Parallel()
	for _, document := range []fields{
		{"privileges": []string{"SELECT ON app.*", "select, Insert (a, `b c`) on TABLE `my app`.`o``rders`", "EXECUTE ON PROCEDURE app.p", "ALL ON app.*", "PROCESS ON *.*", "BACKUP_ADMIN ON *.*"}, "host": "10.0.%"},
		{"privileges": []string{"SELECT ON table.*", "SELECT ON app.table"}, "host": "192.168.1.0/255.255.255.0"},
		{"creation_statements": []string{createUser, "GRANT SELECT ON app.* TO '{{name}}'@'%'"}, "revocation_statements": []string{"DROP USER {{name}}@'%'"}, "renew_statements": []string{"CALL admin.renew('{{name}}', '{{expiration}}')"}},
		{"creation_statements": []string{"create user {{name}}@'%' identified\n with caching_sha2_password by \"{{password}}\""}},
		{"creation_statements": []string{"CREATE USER '{{name}}'@'%' IDENTIFIED VIA mysql_native_password USING '{{password}}'"}},
		{"creation_statements": []string{"CALL admin.make('{{name}}', '{{password}}')"}, "password_form": "plain"},
	} {
		parseRole(t, document)
	}
}

func TestParseRoleRefuses(t *testing.T) {
	t.Parallel()
	one := func(privilege string) fields { return fields{"privileges": []string{"SELECT ON app.*", privilege}} }
	for name, r := range map[string]struct {
		document fields
		says     string
	}{
		"nothing":                 {fields{}, "gives nothing"},
		"both forms":              {fields{"privileges": []string{"SELECT ON app.*"}, "creation_statements": []string{createUser}}, "choose one"},
		"a host with statements":  {fields{"creation_statements": []string{createUser}, "host": "%"}, "host"},
		"a hostile host":          {fields{"privileges": []string{"SELECT ON app.*"}, "host": "%' ACCOUNT LOCK -- "}, "host"},
		"an unknown field":        {fields{"privilege": "x"}, "privilege"},
		"no name":                 {fields{"creation_statements": []string{"CREATE USER x IDENTIFIED BY '{{password}}'"}}, "{{name}}"},
		"an unknown variable":     {fields{"creation_statements": []string{createUser + " {{nobody}}"}}, "{{nobody}}"},
		"a hash where none works": {fields{"creation_statements": []string{"CALL make('{{name}}', '{{password}}')"}}, "password_form"},
		"another plugin":          {fields{"creation_statements": []string{"CREATE USER '{{name}}' IDENTIFIED WITH sha256_password BY '{{password}}'"}}, "password_form"},
		"an unknown form":         {fields{"creation_statements": []string{createUser}, "password_form": "scram"}, "password_form"},
		"plain privileges":        {fields{"privileges": []string{"SELECT ON app.*"}, "password_form": "plain"}, "password_form"},
		"the session":             {fields{"creation_statements": []string{"SET sql_mode = 'ANSI_QUOTES'", createUser}}, "SET SQL_MODE"},
		"a transaction":           {fields{"creation_statements": []string{"BEGIN", createUser}}, "BEGIN"},
		"an executed comment":     {fields{"creation_statements": []string{createUser + " /*! ACCOUNT UNLOCK */"}}, "/*!"},
		"bad revocation":          {fields{"creation_statements": []string{createUser}, "revocation_statements": []string{"DROP USER '{{password}}'"}}, "{{password}}"},
		"bad renewal":             {fields{"creation_statements": []string{createUser}, "renew_statements": []string{"'"}}, "'"},
		"renewal of privileges":   {fields{"privileges": []string{"SELECT ON app.*"}, "renew_statements": []string{"SELECT 1"}}, "renew_statements"},
		"no such right":           {one("SELCT ON app.*"), `privileges[1]: "SELCT"`},
		"no right of a table":     {one("EXECUTE ON app.orders"), `"EXECUTE"`},
		"no right of a schema":    {one("PROCESS ON app.*"), `"PROCESS"`},
		"no right of a routine":   {one("SELECT ON PROCEDURE app.p"), `"SELECT"`},
		"columns of a schema":     {one("SELECT (a) ON app.*"), "columns"},
		"no right on columns":     {one("DELETE (a) ON app.orders"), `"DELETE"`},
		"no target":               {one("SELECT"), "ON"},
		"no schema":               {one("SELECT ON orders"), "schema"},
		"half a target":           {one("SELECT ON app."), "table"},
		"no right at all":         {one("ON app.*"), "right is missing"},
		"passing on":              {one("SELECT ON app.* WITH GRANT OPTION"), "WITH"},
		"the right to pass on":    {one("GRANT OPTION ON app.*"), `"GRANT OPTION"`},
		"another user":            {one("PROXY ON x"), "schema"},
		"a second statement":      {one("SELECT ON app.*; DROP USER root"), "byte"},
		"a quote":                 {one("SELECT ON app.`x"), "byte"},
		"an open list":            {one("SELECT (a ON app.orders"), "list"},
		"a comment":               {one("SELECT ON app.* -- x"), "byte"},
	} {
		raw, err := json.Marshal(r.document)
		if err != nil {
			t.Fatal(err)
		}
		_, err = mysql.Type{}.ParseRole(raw)
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseRole(f *testing.F) {
	f.Add("SELECT ON app.*", createUser)
	f.Add("SELECT (a, `b`) ON TABLE `x``y`.z", "CALL x('{{name}}')")
	f.Fuzz(func(t *testing.T, privilege, statement string) {
		for _, document := range []fields{{"privileges": []string{privilege}}, {"creation_statements": []string{statement}}} {
			raw, err := json.Marshal(document)
			if err != nil {
				return
			}
			if _, err := (mysql.Type{}).ParseRole(raw); err != nil && fault.CodeOf(err) != fault.InvalidConfig {
				t.Errorf("%s: %v", raw, err)
			}
		}
	})
}
