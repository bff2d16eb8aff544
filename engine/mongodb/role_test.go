package mongodb_test

import (
	"encoding/json"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/mongodb"
	"github.com/scaivault/scaivault/internal/fault"
)

func TestParseRoleRefuses(t *testing.T) {
	t.Parallel()
	for document, says := range map[string]string{
		`{}`:                            "give nothing",
		`{"database": "a"}`:             "give nothing",
		`{"role": []}`:                  `"role"`,
		`{"roles": "read"}`:             "roles",
		`{"roles": ["read"]}`:           "roles",
		`{"roles": [{"role": "read"}]}`: "lacks db",
		`{"roles": [{"role": "read", "db": "app"}, {"db": "app"}]}`:                                                                                           "entry 2",
		`{"roles": [{"role": "read", "db": "app", "database": "app"}]}`:                                                                                       "database",
		`{"roles": [{"role": "read", "db": "a.b"}]}`:                                                                                                          "holds one of",
		`{"roles": [{"role": "read\u0000", "db": "app"}]}`:                                                                                                    "NUL",
		`{"roles": [{"role": "__system", "db": "admin"}]}`:                                                                                                    "__system",
		`{"roles": [{"role": "scaivault-fence-1", "db": "app"}]}`:                                                                                             "ScaiVault's own",
		`{"database": "", "roles": [{"role": "read", "db": "app"}]}`:                                                                                          "database is empty",
		`{"database": "a b", "roles": [{"role": "read", "db": "app"}]}`:                                                                                       "database holds",
		`{"privileges": [{"resource": {"db": "app", "collection": ""}}]}`:                                                                                     "no actions",
		`{"privileges": [{"resource": {"db": "app"}, "actions": ["find"]}]}`:                                                                                  "neither",
		`{"privileges": [{"actions": ["find"]}]}`:                                                                                                             "neither",
		`{"privileges": [{"resource": {"cluster": true, "db": "app"}, "actions": ["find"]}]}`:                                                                 "neither",
		`{"privileges": [{"resource": {"anyResource": true}, "actions": ["anyAction"]}]}`:                                                                     "anyResource",
		`{"privileges": [{"resource": {"db": "app", "collection": ""}, "actions": [""]}]}`:                                                                    "action",
		`{"privileges": [{"resource": {"db": "app", "collection": ""}, "actions": ["a b"]}]}`:                                                                 "action",
		`{"database": "app", "privileges": [{"resource": {"db": "other", "collection": ""}, "actions": ["find"]}]}`:                                           "outside of database app",
		`{"database": "app", "privileges": [{"resource": {"cluster": true}, "actions": ["inprog"]}]}`:                                                         "outside of database app",
		`{"database": "app", "roles": [{"role": "read", "db": "other"}], "privileges": [{"resource": {"db": "app", "collection": ""}, "actions": ["find"]}]}`: "outside of database app",
	} {
		_, err := mongodb.Type{}.ParseRole(json.RawMessage(document))
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", document, err)
		}
	}
}

// TestPrepareRole: what only the source knows is said when the role is saved.
func TestPrepareRole(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	for document, says := range map[string]string{
		`{"database": "app", "roles": [{"role": "reed", "db": "app"}]}`:                                            "reed",
		`{"database": "app", "roles": [{"role": "readAnyDatabase", "db": "app"}]}`:                                 "readAnyDatabase",
		`{"database": "app", "roles": [{"role": "a\", \"db\": \"admin", "db": "app"}]}`:                            `a", "db": "admin`,
		`{"database": "app", "roles": [{"role": "read", "db": "other"}]}`:                                          `"db":"other"`,
		`{"roles": [{"role": "read", "db": "app"}]}`:                                                               `"createUser"`,
		`{"database": "app", "privileges": [{"resource": {"db": "app", "collection": ""}, "actions": ["findd"]}]}`: "privilege",
	} {
		_, err := e.PrepareRole(t.Context(), "bad", parseRole(t, document))
		if k := engine.KindOf(err); (k != engine.Misconfigured && k != engine.Refused) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", document, err)
		}
	}
	for document, warned := range map[string]bool{
		readApp: false,
		`{"database": "app", "roles": [{"role": "userAdmin", "db": "app"}]}`:                                            true,
		`{"database": "app", "roles": [{"role": "read", "db": "app"}, {"role": "dbOwner", "db": "app"}]}`:               true,
		`{"database": "app", "privileges": [{"resource": {"db": "app", "collection": ""}, "actions": ["createUser"]}]}`: true,
	} {
		warnings, err := e.PrepareRole(t.Context(), "good", parseRole(t, document))
		if err != nil || len(warnings) > 0 != warned {
			t.Errorf("%s: %v, %v", document, warnings, err)
		}
	}
}

// TestPrivileges: a role's own privileges are held by one role at the source, whoever makes its first
// user, and an edited role gets another one.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	const counting = `{"database": "app", "privileges": [{"resource": {"db": "app", "collection": "things"}, "actions": ["find"]}]}`
	first, second := issue(t, e, counting), issue(t, e, counting)
	s.works(t, first)
	opened, err := s.login(t.Context(), s.server.Addr(), second.data)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	err = opened.client.Database(appDB).RunCommand(t.Context(), bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{bson.D{}}}}).Err()
	if err == nil || !strings.Contains(err.Error(), "not authorized") {
		t.Errorf("a reader writes: %v", err)
	}
	if a, b := s.roleOf(t, first), s.roleOf(t, second); a != b {
		t.Errorf("two users of one role have %s and %s", a, b)
	}
	edited := issue(t, e, strings.Replace(counting, `"find"`, `"find", "insert"`, 1))
	if s.roleOf(t, edited) == s.roleOf(t, first) {
		t.Error("an edited role changes the rights of the users that it had")
	}
	for _, c := range []credential{first, second, edited} {
		revoke(t, e, c.recipe)
		s.dead(t, c)
	}
}

// roleOf is the first role of a credential's user.
func (s *source) roleOf(t *testing.T, c credential) string {
	t.Helper()
	answer := s.server.Do(t, appDB, bson.D{{Key: "usersInfo", Value: c.name}})
	return answer.Lookup("users", "0", "roles", "0", "role").StringValue()
}
