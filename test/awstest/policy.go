package awstest

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

// list is one text or several.
type list []string

func (l *list) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(l))
}

// statement is one of a policy.
type statement struct {
	Effect    string                     `json:"Effect"`
	Action    list                       `json:"Action,omitempty"`
	NotAction list                       `json:"NotAction,omitempty"`
	Resource  list                       `json:"Resource,omitempty"`
	Condition map[string]map[string]list `json:"Condition,omitempty"`
}

type policy struct {
	Version   string      `json:"Version"`
	Statement []statement `json:"Statement"`

	text string // as it was written
}

// parsePolicy reads what moto accepts: a Statement that is one or several.
func parsePolicy(text string) (policy, error) {
	var loose struct {
		Version   string          `json:"Version"`
		Statement json.RawMessage `json:"Statement"`
	}
	if err := json.Unmarshal([]byte(text), &loose); err != nil {
		return policy{}, err
	}
	p := policy{Version: loose.Version}
	var one statement
	if json.Unmarshal(loose.Statement, &one) == nil {
		p.Statement = []statement{one}
		return p, nil
	}
	return p, json.Unmarshal(loose.Statement, &p.Statement)
}

// hidden is what moto is given of a policy: without resources, which it does not know of requests to
// IAM, and without what has conditions, which it takes for met.
func (p policy) hidden() string {
	out := policy{Version: p.Version}
	for _, s := range p.Statement {
		if len(s.Condition) == 0 {
			s.Resource = list{"*"}
			out.Statement = append(out.Statement, s)
		}
	}
	if len(out.Statement) == 0 {
		out.Statement = []statement{{Effect: "Allow", Action: list{"none:None"}, Resource: list{"*"}}}
	}
	raw, err := json.Marshal(out)
	if err != nil {
		panic(err) // it was decoded from JSON
	}
	return string(raw)
}

// question is whether somebody may do something.
type question struct {
	action, resource string
	userID           string
	now              time.Time
}

// verdict of policies: nothing said, allowed, denied.
type verdict int

const (
	silent verdict = iota
	allowed
	denied
)

func (p policy) judge(q question) verdict {
	found := silent
	for _, s := range p.Statement {
		concerned := matches(s.Action, q.action) || len(s.NotAction) > 0 && !matches(s.NotAction, q.action)
		if !concerned || !matches(s.Resource, q.resource) || !s.met(q) {
			continue
		}
		if s.Effect == "Deny" {
			return denied
		}
		found = allowed
	}
	return found
}

// met evaluates the conditions that the engine uses. One that is not known is not met, so that a test
// which relies on it fails.
func (s statement) met(q question) bool {
	for operator, keys := range s.Condition {
		for key, values := range keys {
			switch {
			case operator == "DateGreaterThan" && key == "aws:CurrentTime":
				end, err := time.Parse(time.RFC3339, values[0])
				if err != nil || !q.now.After(end) {
					return false
				}
			case operator == "StringEquals" && key == "aws:userid":
				if !slices.Contains(values, q.userID) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

func matches(patterns list, text string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		expression := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`)
		ok, err := regexp.MatchString(`(?i)^`+expression+`$`, text)
		return ok && err == nil
	})
}
