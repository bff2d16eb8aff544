package redis

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

// account is an ACL user as a node has it.
type account struct {
	name   string
	on     bool
	hashes []string // of its passwords
	rules  []string // all of it, as ACL SETUSER takes it; only of ACL LIST
}

// hashRule is the rule that gives a user a password by its hash, which is what
// Redis itself keeps of it.
func hashRule(password statement.Secret) string {
	sum := sha256.Sum256([]byte(password.Reveal()))
	return "#" + hex.EncodeToString(sum[:])
}

// Users have no comments, so the mark that makes one ours beyond its name is a
// second password hash: 32 bytes that say what they are, and end with our keyed
// tag over the name. Nobody can log in by it: that needs a text of which these
// very bytes are the SHA-256.
const markPrefix = "scaivault redis user: "

func markOf(namer *statement.Namer, name string) string {
	signed := namer.Mark("redis:" + name)
	tag := signed[len(signed)-(sha256.Size-len(markPrefix)):]
	return hex.EncodeToString([]byte(markPrefix + tag))
}

// ours tells whether a user was made by this installation: by the checksum in
// its name and by its mark. What has no password and is off is an empty shell
// that a change of a user, which had just been ended, leaves: only the name
// counts then.
func (e *Engine) ours(a account) bool {
	if !e.options.Namer.Ours(a.name) {
		return false
	}
	return slices.Contains(a.hashes, markOf(e.options.Namer, a.name)) || !a.on && len(a.hashes) == 0
}

// readUser reads the answer of ACL GETUSER; ok is false where there is no such
// user.
func readUser(name string, value any) (a account, ok bool) {
	fields, _ := value.([]any)
	a.name = name
	for i := 0; i+1 < len(fields); i += 2 {
		switch text(fields[i]) {
		case "flags":
			a.on = slices.Contains(list(fields[i+1]), "on")
		case "passwords":
			a.hashes = list(fields[i+1])
		}
	}
	return a, len(fields) > 0
}

// readUsers reads the answer of ACL LIST. Names and patterns hold no spaces;
// only a selector, which is in parentheses, does.
func readUsers(value any) []account {
	var all []account
	for _, line := range list(value) {
		words := strings.Split(strings.TrimSpace(line), " ")
		if len(words) < 3 || words[0] != "user" {
			continue
		}
		a := account{name: words[1], rules: joinSelectors(words[2:])}
		a.on = slices.Contains(a.rules, "on")
		for _, rule := range a.rules {
			if hash, ok := strings.CutPrefix(rule, "#"); ok {
				a.hashes = append(a.hashes, hash)
			}
		}
		all = append(all, a)
	}
	return all
}

func joinSelectors(words []string) []string {
	var rules []string
	open := false
	for _, w := range words {
		switch {
		case open:
			rules[len(rules)-1] += " " + w
		default:
			rules = append(rules, w)
		}
		open = (open || strings.HasPrefix(w, "(")) && !strings.HasSuffix(w, ")")
	}
	return rules
}
