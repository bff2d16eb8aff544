package redis

import (
	"encoding/json"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// role is the engine's part of a role: the rules of ACL SETUSER that say what
// its users may do.
type role struct {
	ACLRules []string `json:"acl_rules"`
}

// parseRole decodes and checks a role. What the source knows and we do not, such
// as the commands of its modules, it is asked when the role is saved.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	gives := false
	for i, rule := range r.ACLRules {
		if why := checkRule(rule, true); why != "" {
			return nil, engine.Invalid("acl_rules: rule %d, %.60q, %s", i+1, rule, why)
		}
		gives = gives || rule[0] == '+' || rule == "allcommands" || rule[0] == '(' && strings.Contains(rule, "+")
	}
	if !gives {
		return nil, engine.Invalid(`acl_rules give nothing: name at least a command or category, such as ["~app:*", "+@read"]`)
	}
	return r, nil
}

// arguments are the rules as ACL SETUSER takes them, one argument each.
func (r *role) arguments() []any {
	arguments := make([]any, len(r.ACLRules))
	for i, rule := range r.ACLRules {
		arguments[i] = rule
	}
	return arguments
}

// checkRule answers what is wrong with a rule; empty if nothing is. A selector
// holds the same rules as the user, but for selectors.
func checkRule(rule string, selectors bool) string {
	switch {
	case rule == "":
		return "is empty"
	case strings.IndexFunc(rule, unprintable) >= 0:
		return "holds a control character or one beyond ASCII"
	case rule[0] == '(':
		return checkSelector(rule, selectors)
	case strings.Contains(rule, " "):
		return "holds a space: give each rule as an entry of its own"
	case owned(rule):
		return "is not for roles: name, password and state of a user are ScaiVault's"
	}
	switch strings.ToLower(rule) {
	case "allkeys", "resetkeys", "allchannels", "resetchannels", "allcommands", "nocommands":
		return ""
	}
	switch rule[0] {
	case '+', '-':
		return checkCommand(rule[1:])
	case '~', '&':
		return checkPattern(rule[1:])
	case '%':
		rights, pattern, ok := strings.Cut(rule[1:], "~")
		switch strings.ToUpper(rights) {
		case "R", "W", "RW", "WR":
			if ok {
				return checkPattern(pattern)
			}
		}
		return "is no key permission: write %R~pattern, %W~pattern or %RW~pattern"
	}
	return "is no rule: it begins with + or - (commands), ~ or % (keys), & (channels) or ( (a selector)"
}

// owned are the rules that would make a user other than the one that ScaiVault
// makes and ends: its passwords, whether it is on, and all at once.
func owned(rule string) bool {
	switch rule[0] {
	case '>', '<', '#', '!':
		return true
	}
	switch strings.ToLower(rule) {
	case "on", "off", "nopass", "resetpass", "reset", "clearselectors", "sanitize-payload", "skip-sanitize-payload":
		return true
	}
	return false
}

func checkSelector(rule string, allowed bool) string {
	inner, closed := strings.CutSuffix(rule[1:], ")")
	switch {
	case !allowed:
		return "is a selector within a selector"
	case !closed:
		return "is a selector that is not closed"
	case strings.TrimSpace(inner) == "":
		return "is a selector without rules"
	}
	for word := range strings.SplitSeq(strings.TrimSpace(inner), " ") {
		if why := checkRule(word, false); why != "" {
			return "is a selector of which " + quoted(word) + " " + why
		}
	}
	return ""
}

// checkCommand reads name, name|sub or @category.
func checkCommand(text string) string {
	if category, ok := strings.CutPrefix(text, "@"); ok {
		if category == "" || strings.IndexFunc(category, notInName) >= 0 {
			return "names no category: write +@read"
		}
		return ""
	}
	name, sub, several := strings.Cut(text, "|")
	switch {
	case name == "" || strings.IndexFunc(name, notInName) >= 0:
		return "names no command: write +get or +config|get"
	case several && (sub == "" || strings.ContainsAny(sub, "|()")):
		return "names no subcommand: write +config|get"
	}
	return ""
}

func checkPattern(pattern string) string {
	if pattern == "" {
		return "has an empty pattern, which only the empty key matches"
	}
	return ""
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// notInName tells what no command or category holds; those of modules hold dots.
func notInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
}

func quoted(word string) string {
	if len(word) > 60 {
		word = word[:60] + "…"
	}
	return `"` + word + `"`
}

// outlives tells whether users of the role may make users themselves, which no
// revocation ends.
func (r *role) outlives() bool {
	may := false
	for _, rule := range r.ACLRules {
		switch strings.ToLower(rule) {
		case "+@all", "allcommands", "+@admin", "+@dangerous", "+@slow", "+acl", "+acl|setuser", "+acl|load":
			may = true
		case "-@all", "nocommands", "-@admin", "-@dangerous", "-@slow", "-acl":
			may = false
		}
		may = may || rule[0] == '(' && strings.Contains(strings.ToLower(rule), "+acl") || rule[0] == '(' && strings.Contains(strings.ToLower(rule), "+@all")
	}
	return may
}
