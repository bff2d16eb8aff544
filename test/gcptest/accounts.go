package gcptest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serviceAccount is one that exists, or did until now.
type serviceAccount struct {
	email, id                string
	project                  string
	displayName, description string
	disabled                 bool
	keys                     map[string]*key
	existence
}

// existence is when something is known, by the server's clock.
type existence struct{ from, until time.Time }

// known tells whether it is there for who asks now. What is deleted has an until.
func (e existence) known(now time.Time) bool {
	return !now.Before(e.from) && (e.until.IsZero() || now.Before(e.until))
}

func (e existence) deleted() bool { return !e.until.IsZero() }

// Account is a service account as a test sees it.
type Account struct {
	Email, ID, Description string
	Keys                   []string // ids of all that were not deleted
}

// AddAccount makes a service account, as an administrator does. The name has to be free.
func (s *Server) AddAccount(name string) Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.addAccount(Project, name, "", "")
	a.from = time.Time{}
	return a.shown()
}

// Describe changes the description of an account, as an administrator does.
func (s *Server) Describe(email, description string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[email].description = description
}

// DeleteAccount deletes one, as an administrator does.
func (s *Server) DeleteAccount(email string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleteAccount(s.accounts[email])
}

// Accounts are all that were not deleted.
func (s *Server) Accounts() []Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Account
	for _, email := range slices.Sorted(maps.Keys(s.accounts)) {
		if a := s.accounts[email]; !a.deleted() {
			all = append(all, a.shown())
		}
	}
	return all
}

func (a *serviceAccount) shown() Account {
	shown := Account{Email: a.email, ID: a.id, Description: a.description}
	for _, id := range slices.Sorted(maps.Keys(a.keys)) {
		if !a.keys[id].deleted() {
			shown.Keys = append(shown.Keys, id)
		}
	}
	return shown
}

func (s *Server) addAccount(project, name, displayName, description string) *serviceAccount {
	number, _ := new(big.Int).SetString(random(8), 16)
	a := &serviceAccount{
		email: name + "@" + project + ".iam.gserviceaccount.com", id: fmt.Sprintf("1%020s", number)[:21], project: project,
		displayName: displayName, description: description, keys: map[string]*key{}, existence: existence{from: s.now().Add(s.lag)},
	}
	s.accounts[a.email] = a
	return a
}

func (s *Server) deleteAccount(a *serviceAccount) {
	a.until = s.now().Add(s.lag)
	for _, p := range s.policies {
		p.rename("serviceAccount:"+a.email, "deleted:serviceAccount:"+a.email+"?uid="+a.id)
	}
}

var accountIDForm = regexp.MustCompile(`^[a-z][-a-z0-9]{4,28}[a-z0-9]$`)

func (s *Server) serveAccounts(verb string, x *exchange) (any, error) {
	if verb == "create" || verb == "list" {
		project := x.parameters["name"]
		if err := s.permit(x, project, "iam.serviceAccounts."+verb); err != nil {
			return nil, err
		}
		if verb == "create" {
			return s.createAccount(x, strings.TrimPrefix(project, "projects/"))
		}
		return s.listAccounts(x)
	}
	a, err := s.accountIn(x, x.parameters["name"], "iam.serviceAccounts."+verb)
	if err != nil {
		return nil, err
	}
	if verb == "delete" {
		if a.deleted() {
			return nil, fail(http.StatusNotFound, "NOT_FOUND", "Service account %s does not exist.", a.email)
		}
		s.deleteAccount(a)
		return struct{}{}, nil
	}
	return a.resource(), nil
}

func (s *Server) createAccount(x *exchange, project string) (any, error) {
	var q struct {
		AccountID      string `json:"accountId"`
		ServiceAccount struct {
			DisplayName string `json:"displayName"`
			Description string `json:"description"`
		} `json:"serviceAccount"`
	}
	if err := json.Unmarshal(x.body, &q); err != nil {
		return nil, err
	}
	switch {
	case !accountIDForm.MatchString(q.AccountID):
		return nil, fail(http.StatusBadRequest, "INVALID_ARGUMENT", "The account ID %q does not have a length between 6 and 30.", q.AccountID)
	case len(q.ServiceAccount.Description) > 256, len(q.ServiceAccount.DisplayName) > 100:
		return nil, fail(http.StatusBadRequest, "INVALID_ARGUMENT", "The description or the display name is too long.")
	}
	if a, taken := s.accounts[q.AccountID+"@"+project+".iam.gserviceaccount.com"]; taken && !a.deleted() {
		return nil, fail(http.StatusConflict, "ALREADY_EXISTS", "Service account %s already exists within project projects/%s.", q.AccountID, project)
	}
	return s.addAccount(project, q.AccountID, q.ServiceAccount.DisplayName, q.ServiceAccount.Description).resource(), nil
}

func (s *Server) listAccounts(x *exchange) (any, error) {
	query := x.r.URL.Query()
	size, _ := strconv.Atoi(query.Get("pageSize"))
	if size <= 0 || size > 100 {
		size = 20
	}
	size = min(size, 3) // pages are small, so that whoever reads one only is noticed
	from, _ := strconv.Atoi(query.Get("pageToken"))
	var all []any
	for _, email := range slices.Sorted(maps.Keys(s.accounts)) {
		if a := s.accounts[email]; a.known(s.now()) && "projects/"+a.project == x.parameters["name"] {
			all = append(all, a.resource())
		}
	}
	page := map[string]any{}
	if end := min(len(all), from+size); from < end {
		page["accounts"] = all[from:end]
		if end < len(all) {
			page["nextPageToken"] = strconv.Itoa(end)
		}
	}
	return page, nil
}

func (a *serviceAccount) path() string {
	return "projects/" + a.project + "/serviceAccounts/" + a.email
}

func (a *serviceAccount) resource() map[string]any {
	r := map[string]any{"name": a.path(), "projectId": a.project, "uniqueId": a.id, "email": a.email, "oauth2ClientId": a.id, "etag": "MDEwMjE5MjA="}
	if a.displayName != "" {
		r["displayName"] = a.displayName
	}
	if a.description != "" {
		r["description"] = a.description
	}
	if a.disabled {
		r["disabled"] = true
	}
	return r
}

// accountIn finds the account of a resource name, for who may do what is asked. Without the
// permission nobody learns whether it exists.
func (s *Server) accountIn(x *exchange, name, permission string) (*serviceAccount, error) {
	parts := strings.Split(name, "/") // projects/P/serviceAccounts/A, and what is in it
	var found *serviceAccount
	changing := strings.HasSuffix(permission, ".delete") // what changes something goes by what is, reads by what is known
	for _, a := range s.accounts {
		if (a.email == parts[3] || a.id == parts[3]) && (parts[1] == "-" || parts[1] == a.project) && (a.known(s.now()) || changing && !a.deleted()) {
			found = a
		}
	}
	resource := "projects/" + parts[1]
	if found != nil {
		resource = found.path()
	}
	if err := s.permit(x, resource, permission); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fail(http.StatusNotFound, "NOT_FOUND", "Service account %s does not exist.", parts[3])
	}
	return found, nil
}
