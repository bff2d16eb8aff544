package custom

import (
	"encoding/json"
	"strings"
)

const (
	redacted = "[redacted]"
	// shortestSecret keeps a port or a short word among the root's fields from blacking out every log.
	shortestSecret = 6
)

// scrub takes the root's secrets and those given out of a text that a program wrote, in the forms in
// which they usually stand there.
func (e *Engine) scrub(text string, more ...string) string {
	for _, value := range e.options.Root {
		more = append(more, value.Reveal())
	}
	return scrub(text, more)
}

func scrub(text string, secrets []string) string {
	for _, secret := range secrets {
		quoted, err := json.Marshal(secret)
		if err != nil {
			continue
		}
		for _, form := range append(strings.Split(secret, "\n"), secret, strings.Trim(string(quoted), `"`)) {
			if len(form) >= shortestSecret {
				text = strings.ReplaceAll(text, form, redacted)
			}
		}
	}
	return text
}
