package custom

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/strictjson"
)

// Limits of what an issuance answers.
const (
	maxFields   = 64
	maxFieldKey = 64
	maxRef      = 16 << 10
)

// Plan implements engine.Engine.
func (e *Engine) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	parsed, ok := r.Role.(*role)
	if !ok {
		return nil, misconfigured("plan a credential: the role is not one of this engine", nil)
	}
	var own struct {
		Parameters json.RawMessage `json:"parameters"`
	}
	if given(r.Params) {
		if err := strictjson.Decode(r.Params, &own); err != nil {
			return nil, refused("plan a credential: a request takes no field of its own but parameters")
		}
	}
	if len(own.Parameters) > maxParameters {
		return nil, refused("plan a credential: parameters are longer than 16 KiB")
	}
	name := e.newName(r.RoleName)
	return &engine.Plan{
		LeaseID: r.LeaseID, Username: name, Role: parsed, ExpiresAt: r.ExpiresAt,
		Recipe: recipe{Source: e.source, Username: name, LeaseID: r.LeaseID, Role: r.RoleName,
			OfRole: parsed.Parameters, OfCaller: own.Parameters}.encode(),
		Data: map[string]statement.Secret{},
	}, nil
}

func (e *Engine) newName(roleName string) string {
	if e.config.names != nil {
		return e.options.Namer.Name(e.config.names, roleName)
	}
	return e.options.Namer.New(roleName, maxNameBytes)
}

// Issue implements engine.Engine. Whatever goes wrong after the program began leaves nobody knows
// what, unless the program itself says that it made nothing.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	r, err := e.readRecipe(p.Recipe)
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(p.Deadline) {
		return nil, refused("issue a credential: the deadline has passed")
	}
	ctx, cancel := context.WithDeadline(ctx, p.Deadline)
	defer cancel()
	q := r.request(functionIssue)
	until := p.ExpiresAt.UTC()
	q.ExpiresAt = &until
	var made issued
	ctx = failpoint.OnSending(ctx, failpoint.F3)
	if err := e.call(ctx, &q, &made); err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.F5)
	why := made.wrong(p.Username)
	if why != "" {
		return nil, e.broken(&q, &failure{code: codeReply, err: replyError(why)})
	}
	if err := e.checkRef(&q, made.Ref); err != nil {
		return nil, err
	}
	if p.Data == nil {
		p.Data = map[string]statement.Secret{}
	}
	for field, value := range made.Data {
		p.Data[field] = statement.Secret(value)
	}
	if given(made.Ref) {
		r.Ref = made.Ref
	}
	return r.encode(), nil
}

// wrong is why a reply cannot be taken; empty if it can. A reference is stored in the clear, so that it
// repeats nothing of the credential but its name and what the program calls public (law L6).
func (i *issued) wrong(name string) string {
	switch {
	case len(i.Data) == 0:
		return "data is missing or empty"
	case len(i.Data) > maxFields:
		return "data has more than 64 fields"
	}
	for _, field := range slices.Sorted(maps.Keys(i.Data)) {
		value := i.Data[field]
		switch {
		case field == "" || len(field) > maxFieldKey:
			return "a field of data has a name that is empty or longer than 64 characters"
		case value == "" || value == name || slices.Contains(i.Public, field):
			continue
		case within(decoded(i.Ref), value):
			return "ref repeats a field of data that is not among public"
		}
	}
	return ""
}

// checkRef refuses a reference that must not be stored: it is, in the clear.
func (e *Engine) checkRef(q *request, ref json.RawMessage) error {
	var why string
	switch {
	case len(ref) > maxRef:
		why = "ref is longer than 16 KiB"
	case q.repeatsRoot(decoded(ref)):
		why = "ref repeats a secret of the root"
	default:
		return nil
	}
	return e.broken(q, &failure{code: codeReply, err: replyError(why)})
}

// decoded is a JSON value; nil where there is none.
func decoded(document json.RawMessage) (value any) {
	_ = json.Unmarshal(document, &value) // nothing, or read as JSON before
	return value
}

// within tells whether a text stands in a JSON value.
func within(value any, text string) bool {
	switch v := value.(type) {
	case string:
		return v == text || len(text) >= 8 && strings.Contains(v, text)
	case []any:
		return slices.ContainsFunc(v, func(x any) bool { return within(x, text) })
	case map[string]any:
		for key, x := range v {
			if within(key, text) || within(x, text) {
				return true
			}
		}
	}
	return false
}
