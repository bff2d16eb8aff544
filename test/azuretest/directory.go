package azuretest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"strings"
	"time"
)

// directory is all that there is. The server's lock guards it.
type directory struct {
	applications map[string]*application // by object id
	principals   map[string]*principal
	groups       map[string]*group
	definitions  []*definition
	assignments  map[string]*assignment // by path, in lower case
	tokens       map[string]*token
}

type application struct {
	id, appID, name, notes string
	tags                   []string
	passwords              []*password
	owners                 map[string]bool // object ids of principals
	made, deleted          time.Time
}

type password struct {
	key, name, hint string
	text            [32]byte // its hash
	made, ends      time.Time
}

type principal struct {
	id, appID     string
	tags          []string
	permissions   []string
	owner         string // object id of who made it
	made, deleted time.Time
}

type group struct {
	id, name string
	types    []string
	members  map[string]bool
}

type definition struct {
	id, name            string
	actions, notActions []string
}

type assignment struct{ path, scope, principal, definition string }

type token struct {
	principal   string
	audience    string
	permissions []string
	ends        time.Time
}

func newDirectory() directory {
	return directory{
		applications: map[string]*application{}, principals: map[string]*principal{}, groups: map[string]*group{},
		assignments: map[string]*assignment{}, tokens: map[string]*token{},
		definitions: []*definition{
			{id: "acdd72a7-3385-48ef-bd42-f606fba81ae7", name: "Reader", actions: []string{"*/read"}},
			{id: "b24988ac-6180-42a0-ab88-20f7382dd24c", name: "Contributor", actions: []string{"*"},
				notActions: []string{"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write", "Microsoft.Authorization/elevateAccess/Action"}},
			{id: "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", name: "Owner", actions: []string{"*"}},
			{id: "f58310d9-a9f6-439a-9e8d-f62e7b41a168", name: "Role Based Access Control Administrator",
				actions: []string{"Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete", "*/read", "Microsoft.Support/*"}},
		},
	}
}

func (d *directory) addApplication(name string, tags []string, notes string, made time.Time) *application {
	a := &application{id: newID(), appID: newID(), name: name, tags: tags, notes: notes, made: made, owners: map[string]bool{}}
	d.applications[a.id] = a
	return a
}

func (d *directory) addPrincipal(appID string, tags []string, made time.Time) *principal {
	p := &principal{id: newID(), appID: appID, tags: tags, made: made}
	d.principals[p.id] = p
	return p
}

func (d *directory) applicationOf(appID string) *application {
	for _, a := range d.applications {
		if a.appID == appID && a.deleted.IsZero() {
			return a
		}
	}
	return nil
}

func (d *directory) principalOf(appID string) *principal {
	for _, p := range d.principals {
		if p.appID == appID && p.deleted.IsZero() {
			return p
		}
	}
	return nil
}

func (d *directory) definitionNamed(name string) *definition {
	for _, one := range d.definitions {
		if one.name == name {
			return one
		}
	}
	return nil
}

func (d *directory) definition(id string) *definition {
	for _, one := range d.definitions {
		if one.id == id {
			return one
		}
	}
	return nil
}

// shown tells whether what was made, and perhaps deleted, at these moments is shown now.
func (s *Server) shown(made, deleted time.Time) bool {
	if s.stale && s.writing {
		return deleted.IsZero()
	}
	now := s.now()
	return !now.Before(made.Add(s.lag)) && (deleted.IsZero() || now.Before(deleted.Add(s.lag)))
}

// allowed tells whether a principal may do something at a scope, by its own assignments or its groups'.
func (d *directory) allowed(principal, scope, action string) bool {
	for _, a := range d.assignments {
		who := a.principal == principal
		if g := d.groups[a.principal]; g != nil {
			who = g.members[principal]
		}
		at := strings.ToLower(scope) + "/"
		if who && strings.HasPrefix(at, strings.ToLower(a.scope)+"/") && d.definition(a.definition).allows(action) {
			return true
		}
	}
	return false
}

func (d *definition) allows(action string) bool {
	matches := func(patterns []string) bool {
		for _, pattern := range patterns {
			if wild(strings.ToLower(pattern), strings.ToLower(action)) {
				return true
			}
		}
		return false
	}
	return matches(d.actions) && !matches(d.notActions)
}

// wild matches a pattern in which * stands for anything.
func wild(pattern, text string) bool {
	before, after, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == text
	}
	if !strings.HasPrefix(text, before) {
		return false
	}
	for at := len(before); at <= len(text); at++ {
		if wild(after, text[at:]) {
			return true
		}
	}
	return false
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// newSecret makes a password and what is kept of it.
func newSecret() (text string, kept [32]byte) {
	text = rand.Text()[:3] + "~" + rand.Text()
	return text, sha256.Sum256([]byte(text))
}

// quiet is where the server's complaints about broken connections go: tests break them on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
