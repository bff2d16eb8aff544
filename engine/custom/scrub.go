package custom

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

const (
	// shortestSecret keeps a port or a short word among the root's fields from blacking out every log.
	shortestSecret = 6

	// maxSecrets bounds what it costs to look for them.
	maxSecrets = 1000

	maxLines = 50
	maxLine  = 500
)

// said logs what a program wrote beside its reply, line by line, without the secrets that it was given
// and those that its reply gives.
func (q *request) said(log *slog.Logger, text string, reply json.RawMessage) {
	secrets := append(q.secrets(), secretsOf(reply)...)
	if len(secrets) > maxSecrets {
		log.Warn("a program said something, which is not logged: its reply holds too many secrets to take them all out", "function", q.Function, "name", q.Name)
		return
	}
	lines := strings.Split(strings.TrimSpace(statement.Redact(text, secrets, shortestSecret)), "\n")
	for i, line := range lines {
		if i == maxLines {
			log.Warn("a program said more than is logged", "function", q.Function, "lines", len(lines)-maxLines)
			return
		}
		if line != "" {
			log.Info("a program said", "function", q.Function, "name", q.Name, "text", printable(line, maxLine))
		}
	}
}

// secrets are the root's.
func (q *request) secrets() (values []string) {
	for _, value := range q.Root {
		values = append(values, value.Reveal())
	}
	return values
}

// repeatsRoot tells whether a JSON value that is stored in the clear repeats a secret of the root. Its other
// fields, such as a host or a user, may stand anywhere.
func (q *request) repeatsRoot(value any) bool {
	for name, secret := range q.Root {
		if text := secret.Reveal(); text != "" && namesSecret(name) && within(value, text) {
			return true
		}
	}
	return false
}

// namesSecret tells by its name whether a field of a root is one that nobody may read.
func namesSecret(name string) bool {
	parts := []string{"pass", "pwd", "secret", "token", "credential", "private", "apikey", "api_key"}
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(strings.ToLower(name), part) })
}

// secretsOf are those of an issuance's reply, if it is one. One that is no good as a reply, such as with a
// number in data, holds secrets all the same.
func secretsOf(reply json.RawMessage) (values []string) {
	var made struct {
		Data   map[string]any `json:"data"`
		Public any            `json:"public"`
	}
	_ = json.NewDecoder(bytes.NewReader(reply)).Decode(&made) // what could be read
	public, _ := made.Public.([]any)
	for field, value := range made.Data {
		if !slices.Contains(public, any(field)) {
			values = append(values, texts(value)...)
		}
	}
	return values
}

// texts are those within a JSON value.
func texts(value any) (all []string) {
	switch v := value.(type) {
	case string:
		all = append(all, v)
	case []any:
		for _, x := range v {
			all = append(all, texts(x)...)
		}
	case map[string]any:
		for _, x := range v {
			all = append(all, texts(x)...)
		}
	}
	return all
}

// shown is a text of a program as people may see it: one line, bounded, without the root's secrets.
func (q *request) shown(text string, limit int) string {
	return printable(statement.Redact(text, q.secrets(), shortestSecret), limit)
}
