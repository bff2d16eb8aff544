package redis_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/redis"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/test/redistest"
)

func rules(rules ...string) json.RawMessage {
	raw, err := json.Marshal(map[string]any{"acl_rules": rules})
	if err != nil {
		panic(err)
	}
	return raw
}

func TestParseRoleRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rules []string
		says  string
	}{
		{nil, "give nothing"},
		{[]string{"~app:*"}, "give nothing"},
		{[]string{"-@all"}, "give nothing"},
		{[]string{"+get", ""}, "rule 2"},
		{[]string{"+get", "on"}, `"on"`},
		{[]string{"+get", "OFF"}, `"OFF"`},
		{[]string{"+get", "nopass"}, "nopass"},
		{[]string{"+get", "resetpass"}, "resetpass"},
		{[]string{"+get", "reset"}, "reset"},
		{[]string{"+get", "clearselectors"}, "clearselectors"},
		{[]string{"+get", "skip-sanitize-payload"}, "skip-sanitize-payload"},
		{[]string{"+get", ">hunter2"}, "not for roles"},
		{[]string{"+get", "<hunter2"}, "not for roles"},
		{[]string{"+get", "#" + strings.Repeat("a", 64)}, "not for roles"},
		{[]string{"+get", "!" + strings.Repeat("a", 64)}, "not for roles"},
		{[]string{"+get ~app:*"}, "entry of its own"},
		{[]string{"+get", "~a b"}, "entry of its own"},
		{[]string{"+get", "~a\r\nACL SETUSER x on"}, "control character"},
		{[]string{"+"}, "no command"},
		{[]string{"+@"}, "no category"},
		{[]string{"+@read@write"}, "no category"},
		{[]string{"+config|"}, "no subcommand"},
		{[]string{"+config|get|x"}, "no subcommand"},
		{[]string{"+get", "~"}, "empty pattern"},
		{[]string{"+get", "&"}, "empty pattern"},
		{[]string{"+get", "%~a"}, "no key permission"},
		{[]string{"+get", "%Q~a"}, "no key permission"},
		{[]string{"+get", "%R"}, "no key permission"},
		{[]string{"+get", "app:*"}, "no rule"},
		{[]string{"+get", "(+get"}, "not closed"},
		{[]string{"+get", "()"}, "without rules"},
		{[]string{"+get", "((+get))"}, "selector within"},
		{[]string{"+get", "(+get on)"}, `"on"`},
		{[]string{"+get", "(+get >hunter2)"}, "not for roles"},
	} {
		_, err := redis.Type{}.ParseRole(rules(c.rules...))
		if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.rules, err)
		}
	}
	if _, err := (redis.Type{}).ParseRole(json.RawMessage(`{"acl_rule": []}`)); fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), "acl_rule") {
		t.Errorf("unknown field: %v", err)
	}
}

// TestPrepareRole: what only the server knows is said when the role is saved, and
// leaves no user behind.
func TestPrepareRole(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		s := newSource(t, redistest.Start(t, kind))
		e, server := s.open(t, nil), s.servers[0]
		for rule, says := range map[string]string{
			"+@nosuch":      "+@nosuch",
			"+nosuch":       "+nosuch",
			"-nosuch":       "-nosuch",
			"+config|no":    "+config|no",
			"(+nosuch ~a)":  "+nosuch",
			"(+get ~* ~b)":  "~b",
			"(%R~a +@nope)": "+@nope",
		} {
			_, err := e.PrepareRole(t.Context(), "r", parseRole(t, string(rules("+get", rule))))
			if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), says) {
				t.Errorf("%s, %s: %v", kind, rule, err)
			}
		}
		for rule, warns := range map[string]bool{"+@read": false, "+@all": true, "+acl|setuser": true, "+@admin": true, "-@all": false, "(+acl|setuser)": true} {
			warnings, err := e.PrepareRole(t.Context(), "r", parseRole(t, string(rules("+get", rule))))
			if err != nil || (len(warnings) > 0) != warns {
				t.Errorf("%s, %s: %v, %v", kind, rule, warnings, err)
			}
		}
		if warnings, err := e.PrepareRole(t.Context(), "r", parseRole(t, string(rules("+@all", "-acl")))); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %v", kind, warnings, err)
		}
		users := slices.DeleteFunc(server.Users(t), func(name string) bool {
			return name == "default" || name == rootName || name == e.SourceID()
		})
		if len(users) > 0 {
			t.Errorf("%s: trying roles left users: %v", kind, users)
		}
	}
}

// TestRoleGrammar puts what a role may say beside what the server makes of it:
// whatever the rules are, the user that comes of them is off, has no password and
// has the name it was to have; and the server takes the rules that were accepted,
// but for words that it alone knows.
func TestRoleGrammar(t *testing.T) {
	t.Parallel()
	pieces := []string{"+", "-", "~", "&", "%", "@", "|", "(", ")", " ", "R", "W", "RW~", "on", "off", "nopass", "reset", "resetkeys", "allkeys", "resetchannels", "allcommands", "nocommands",
		"get", "set", "config", "config|get", "@read", "@all", "@nosuch", "nosuch", "app:*", "*", "[a-", "\\", ">x", "#", "!", "\"", "'", "\n", "\x00", "é", "{", "}", "$", "0"}
	heads := []string{"", "", "+", "-", "+@", "~", "%R~", "&", "(+get ~"}
	random := rand.New(rand.NewPCG(7, 11))
	s := newSource(t, redistest.Start(t, redistest.Redis))
	e, server := s.open(t, nil), s.servers[0]
	const tries = 2000
	accepted, taken := 0, 0
	for range tries {
		list := []string{"+get"}
		for range 1 + random.IntN(3) {
			var rule strings.Builder
			rule.WriteString(heads[random.IntN(len(heads))])
			for range 1 + random.IntN(3) {
				rule.WriteString(pieces[random.IntN(len(pieces))])
			}
			list = append(list, rule.String())
		}
		role, err := redis.Type{}.ParseRole(rules(list...))
		if err != nil {
			if fault.CodeOf(err) != fault.InvalidConfig {
				t.Fatalf("%q: %v", list, err)
			}
			continue
		}
		accepted++
		arguments := []any{"ACL", "SETUSER", "probe", "reset"}
		for _, rule := range list {
			arguments = append(arguments, rule)
		}
		_, refusal := server.Try(arguments...)
		_, err = e.PrepareRole(t.Context(), "r", role)
		if (err != nil) != (refusal != nil) {
			t.Fatalf("%q: the server says %v, the engine %v", list, refusal, err)
		}
		if refusal != nil {
			if engine.KindOf(err) != engine.Misconfigured || !strings.HasPrefix(err.Error(), "acl_rules: ") {
				t.Fatalf("%q: %v", list, err)
			}
			continue
		}
		taken++
		user := fmt.Sprint(server.Do(t, "ACL", "GETUSER", "probe"))
		if flags, rest, _ := strings.Cut(user, "]"); !strings.HasPrefix(flags, "[flags [off") || strings.Contains(flags, "nopass") || !strings.HasPrefix(rest, " passwords []") {
			t.Fatalf("%q make a user that is more than its rights: %s", list, user)
		}
		server.Do(t, "ACL", "DELUSER", "probe")
	}
	if accepted < tries/50 || taken < tries/100 {
		t.Errorf("of %d roles %d were accepted and %d taken by the server: this test tests nothing", tries, accepted, taken)
	}
}

// FuzzParseRole: no rule makes it panic, or makes a user that is not ours to end.
func FuzzParseRole(f *testing.F) {
	for _, seed := range []string{"~app:*", "+@read", "%RW~x", "(+get ~a)", "&news.*", "-config|set", "nopass", ">x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		raw, err := json.Marshal(map[string]any{"acl_rules": []string{"+get", rule}})
		if err != nil {
			return
		}
		_, err = redis.Type{}.ParseRole(raw)
		if err != nil && fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("%q: %v", rule, err)
		}
		if err == nil && strings.ContainsAny(rule[:1], "><#! ") {
			t.Errorf("%q is accepted", rule)
		}
	})
}
