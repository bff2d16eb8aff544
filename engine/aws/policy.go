package aws

import (
	"bytes"
	"encoding/json"
	"regexp"
	"time"
)

// arnForms are the ARNs that a role or a configuration may name, by their kind. Paths and names hold
// what IAM lets them hold, and neither wildcards nor variables.
var arnForms = map[string]*regexp.Regexp{
	"role":   regexp.MustCompile(`^arn:aws[a-z-]{0,14}:iam::[0-9]{12}:role/([A-Za-z0-9_+=,.@-]+/){0,32}[A-Za-z0-9_+=,.@-]{1,64}$`),
	"policy": regexp.MustCompile(`^arn:aws[a-z-]{0,14}:iam::([0-9]{12}|aws):policy/([A-Za-z0-9_+=,.@-]+/){0,32}[A-Za-z0-9_+=,.@-]{1,128}$`),
}

const maxARN = 2048

func isARN(text, kind string) bool {
	return len(text) <= maxARN && arnForms[kind].MatchString(text)
}

// document is a policy as IAM takes it: JSON without white space, which IAM does not count either.
type document string

// UnmarshalJSON takes a policy as an object, or as a text that holds one.
func (d *document) UnmarshalJSON(raw []byte) error {
	if text := ""; json.Unmarshal(raw, &text) == nil {
		raw = []byte(text)
	}
	var compact bytes.Buffer
	*d = document(raw)
	if json.Compact(&compact, raw) == nil { // else the check says what is wrong with it
		*d = document(compact.String())
	}
	return nil
}

// policyStatement is one of a policy. Of what IAM knows it decodes what decides whether the policy can be.
type policyStatement struct {
	Sid          string          `json:"Sid"`
	Effect       string          `json:"Effect"`
	Action       json.RawMessage `json:"Action"`
	NotAction    json.RawMessage `json:"NotAction"`
	Resource     json.RawMessage `json:"Resource"`
	NotResource  json.RawMessage `json:"NotResource"`
	Condition    json.RawMessage `json:"Condition"`
	Principal    json.RawMessage `json:"Principal"`
	NotPrincipal json.RawMessage `json:"NotPrincipal"`
}

// check answers what is wrong with a policy; empty if nothing is. What the source knows and we do
// not, such as the names of actions, it says itself.
func (d document) check() string {
	var policy struct {
		Version   string          `json:"Version"`
		ID        string          `json:"Id"`
		Statement json.RawMessage `json:"Statement"`
	}
	if why := strictly([]byte(d), &policy); why != "" {
		return why
	}
	if policy.Version != "2012-10-17" && policy.Version != "2008-10-17" {
		return `has no Version "2012-10-17"`
	}
	var raws []json.RawMessage
	if json.Unmarshal(policy.Statement, &raws) != nil {
		raws = []json.RawMessage{policy.Statement}
	}
	if len(raws) == 0 || len(policy.Statement) == 0 {
		return "has no Statement"
	}
	for _, raw := range raws {
		var s policyStatement
		if why := strictly(raw, &s); why != "" {
			return "has a statement that " + why
		}
		switch {
		case s.Effect != "Allow" && s.Effect != "Deny":
			return `has a statement whose Effect is neither "Allow" nor "Deny"`
		case s.Principal != nil || s.NotPrincipal != nil:
			return "names a Principal, which only policies of resources do"
		case (s.Action == nil) == (s.NotAction == nil):
			return "has a statement without exactly one of Action and NotAction"
		case (s.Resource == nil) == (s.NotResource == nil):
			return "has a statement without exactly one of Resource and NotResource"
		}
	}
	return ""
}

// strictly decodes an object of which all fields are known.
func strictly(raw []byte, into any) string {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if !json.Valid(raw) || len(raw) == 0 || raw[0] != '{' {
		return "is not a JSON object"
	}
	if decoder.Decode(into) != nil {
		return "has a field that IAM does not know, or one of another type"
	}
	return ""
}

// endPolicy is the name of the inline policy that ends a user at AWS itself (law L4), whatever became
// of ScaiVault: from its moment on everything is denied, and nothing else can allow it.
const endPolicy = "scaivault-end"

// rolePolicy is the name of the inline policy that holds a role's policy_document.
const rolePolicy = "scaivault-role"

// endDocument denies everything after a moment. IAM compares whole seconds.
func endDocument(end time.Time) string {
	return deny(`{"DateGreaterThan":{"aws:CurrentTime":"` + end.UTC().Truncate(time.Second).Format(time.RFC3339) + `"}}`)
}

// denyAll denies everything, always.
const denyAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`

// sessionDocument denies everything to one session of a role: userID is the role's id and the
// session's name.
func sessionDocument(userID string) string {
	quoted, err := json.Marshal(userID)
	if err != nil {
		panic(err) // a text always encodes
	}
	return deny(`{"StringEquals":{"aws:userid":` + string(quoted) + `}}`)
}

func deny(condition string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":` + condition + `}]}`
}
