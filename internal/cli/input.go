package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/duration"
)

// maxInput bounds a document or a secret from a file: the server takes 1 MiB.
const maxInput = 2 << 20

// readSecret asks for a text that is not shown, or takes the first line of what
// is piped in.
func (a *app) readSecret(what string) (string, error) {
	var data []byte
	var err error
	if f, ok := a.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.Err, "%s: ", what)
		data, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.Err)
	} else {
		data, err = readAll(a.In)
	}
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	line := strings.TrimSpace(string(data))
	if line == "" || strings.ContainsAny(line, "\r\n") {
		return "", invalid("read the %s: one line is wanted on standard input", what)
	}
	return line, nil
}

// readFile reads a file, or standard input for "-".
func (a *app) readFile(name string) ([]byte, error) {
	if name == "-" {
		return readAll(a.In)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, invalid("%w", err)
	}
	defer f.Close()
	return readAll(f)
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(data) > maxInput {
		return nil, invalid("read the input: it is larger than %d bytes", maxInput)
	}
	return data, err
}

// document reads a JSON object from a file, nothing for the empty name.
func (a *app) document(file string) (map[string]any, error) {
	d := map[string]any{}
	if file == "" {
		return d, nil
	}
	data, err := a.readFile(file)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, invalid("read %s: it is not a JSON object", file)
	}
	return d, nil
}

// set puts name=value pairs into a document: a value that is JSON as JSON, any
// other as a text.
func set(d map[string]any, pairs []string) error {
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return invalid("read %q: name=value is wanted", pair)
		}
		d[name] = jsonOrText(value)
	}
	return nil
}

func jsonOrText(value string) any {
	var v any
	if json.Unmarshal([]byte(value), &v) != nil {
		return value
	}
	return v
}

// as gives a document the type of the API; a field that the type lacks is refused.
func as[T any](d map[string]any) (T, error) {
	var v T
	data, err := json.Marshal(d)
	if err != nil {
		return v, err
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		return v, invalid("read the document: %w", err)
	}
	return v, nil
}

// durationFlag reads a flag such as 90s, 30m, 7d; nil when it was not given.
func durationFlag(name, value string) (*api.Duration, error) {
	if value == "" {
		return nil, nil
	}
	d, err := duration.Parse(value)
	if err != nil {
		return nil, invalid("--%s: %q is no duration; write for example 90s, 30m, 2h, 7d", name, value)
	}
	return &d, nil
}

// timeFlag reads a time, or a duration counted from now into the direction.
func timeFlag(name, value string, from direction) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, value); err == nil {
		return t, nil
	}
	d, err := duration.Parse(value)
	if err != nil {
		return time.Time{}, invalid("--%s: %q is no time; write 2026-01-31T12:00:00Z, or 90s, 30m, 2h, 7d from now", name, value)
	}
	if from == ago {
		return time.Now().Add(-d.Std()), nil
	}
	return time.Now().Add(d.Std()), nil
}

// direction is where a duration in the place of a time leads.
type direction int

const (
	ago direction = iota
	ahead
)
