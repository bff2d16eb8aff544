package custom

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/internal/statement"
)

// protocolVersion is raised when a program that keeps to the former one would no longer do. Fields
// are added without.
const protocolVersion = 1

// The functions of a program. What is not required is told by the runtime, or in the reply to check.
const (
	functionCheck  = "check"  // required
	functionIssue  = "issue"  // required
	functionRevoke = "revoke" // required
	functionRenew  = "renew"
	functionLookup = "lookup"
	functionList   = "list"
)

// request is what a program gets: the fields of every function, and of those that a credential is
// given to. docs/engines/custom-protocol.schema.json has it for authors.
type request struct {
	Protocol     int                         `json:"protocol"`
	Function     string                      `json:"function"`
	Engine       string                      `json:"engine"`
	Installation string                      `json:"installation"`
	Deadline     time.Time                   `json:"deadline"`
	Parameters   parameters                  `json:"parameters"`
	Root         map[string]statement.Secret `json:"-"` // as "root", only in what encode gives

	LeaseID   string          `json:"lease_id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Role      string          `json:"role,omitempty"`
	ExpiresAt *time.Time      `json:"expires_at,omitempty"`
	Ref       json.RawMessage `json:"ref,omitempty"`
}

// parameters are any JSON, as the engine, its role and the caller gave it.
type parameters struct {
	Engine  json.RawMessage `json:"engine,omitempty"`
	Role    json.RawMessage `json:"role,omitempty"`
	Request json.RawMessage `json:"request,omitempty"`
}

// encode is the request with its secrets in the clear: for the program's eyes only.
func (q *request) encode() ([]byte, error) {
	root := make(map[string]string, len(q.Root))
	for name, value := range q.Root {
		root[name] = value.Reveal()
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // for those who read it with a shell
	err := encoder.Encode(struct {
		*request
		Root map[string]string `json:"root"`
	}{q, root})
	return b.Bytes(), err
}

// complaint is a failure that the program tells of itself, in place of a reply.
type complaint struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// The replies. A field that is not known here is an error: it is a misspelt one.
type (
	checked struct {
		OK        bool     `json:"ok"`
		SourceID  string   `json:"source_id"`
		Functions []string `json:"functions"` // of those that are not required
		Warnings  []string `json:"warnings"`
	}
	issued struct {
		Data   map[string]string `json:"data"`
		Public []string          `json:"public"`
		Ref    json.RawMessage   `json:"ref"`
	}
	revoked struct {
		EffectiveAt *time.Time `json:"effective_at"`
		Residue     string     `json:"residue"`
	}
	renewed  struct{}
	lookedUp struct {
		State string          `json:"state"`
		Ref   json.RawMessage `json:"ref"`
	}
	listed struct {
		Accounts []struct {
			Name string          `json:"name"`
			Ref  json.RawMessage `json:"ref"`
		} `json:"accounts"`
	}
)

// given is a JSON value that is there and not null.
func given(raw json.RawMessage) bool {
	return len(raw) > 0 && !bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}
