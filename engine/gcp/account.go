package gcp

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// serviceAccount is an account as the IAM API has it.
type serviceAccount struct {
	Name        string `json:"name,omitempty"`
	Email       string `json:"email,omitempty"`
	UniqueID    string `json:"uniqueId,omitempty"`
	DisplayName string `json:"displayName,omitempty"`
	Description string `json:"description,omitempty"`
	Disabled    bool   `json:"disabled,omitempty"`
}

// markPrefix begins the description of an account of ours. The mark signs the account's name, so that
// a copied description vouches for nothing.
const markPrefix = "Made by ScaiVault, which also deletes it: "

func (e *Engine) iam(path string) string { return e.config.Endpoints.IAM + "/v1/" + path }

// maxAccountID is what Google allows.
const maxAccountID = 30

// newAccountID draws the name of an account. Google takes no underscore in it.
func (e *Engine) newAccountID(roleName string) string {
	t, err := statement.ParseNameTemplate("v-{{role}}-{{random:11}}", maxAccountID)
	if err != nil {
		panic(err) // a constant
	}
	return e.options.Namer.Name(t, lettersOnly(roleName))
}

// lettersOnly leaves what every name may hold: the rest would become underscores.
func lettersOnly(text string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(text))
}

func (e *Engine) ownAccount(id string) *account {
	return &account{project: e.config.Project, email: id + "@" + e.config.Project + ".iam.gserviceaccount.com"}
}

// nameIn is what an address begins with.
func nameIn(email string) string {
	name, _, _ := strings.Cut(email, "@")
	return name
}

// madeFor tells whether an account is the one that a lease's credential has: by the number that Google told
// when it was made, which no other account ever has; where that is not known, by its mark. So one whose
// description was changed dies all the same.
func (e *Engine) madeFor(a serviceAccount, r recipe) bool {
	if r.AccountID != "" && a.UniqueID != r.AccountID || !e.options.Namer.Ours(nameIn(a.Email)) {
		return false
	}
	return r.AccountID != "" && r.LeaseID != "" || e.ours(a) // not one that was read from the list
}

// ours tells whether an account was made by this installation, by its name and its mark.
func (e *Engine) ours(a serviceAccount) bool {
	id := nameIn(a.Email)
	mark, marked := strings.CutPrefix(a.Description, markPrefix)
	return marked && e.options.Namer.Ours(id) && mark == e.options.Namer.Mark(id)
}

// createAccount makes the account of a credential.
func (e *Engine) createAccount(ctx context.Context, username, leaseID string) (serviceAccount, error) {
	var made serviceAccount
	c := post(issuing, e.iam("projects/"+e.config.Project+"/serviceAccounts"), map[string]any{
		"accountId": username,
		"serviceAccount": serviceAccount{
			DisplayName: "ScaiVault " + leaseID,
			Description: markPrefix + e.options.Namer.Mark(username),
		},
	}, &made)
	c.lane = engine.Issuing
	err := e.do(failpoint.OnSending(ctx, failpoint.F3), c)
	if a := answerOf(err); a != nil && a.status == http.StatusConflict {
		return made, failure(engine.NameTaken, issuing+": an account of the planned name exists", err)
	}
	return made, err
}

// findAccount is the account as it is now; found is false where there is none.
func (e *Engine) findAccount(ctx context.Context, attempt string, a *account) (there serviceAccount, found bool, err error) {
	err = e.do(ctx, get(attempt, e.iam(a.path()), &there))
	if gone(err) {
		return there, false, nil
	}
	return there, err == nil, err
}

// deleteAccount ends an account with all its keys, by its number, which no other account ever has.
// Already gone is success.
func (e *Engine) deleteAccount(ctx context.Context, project, id string) error {
	path := "projects/" + project + "/serviceAccounts/" + url.PathEscape(id)
	err := e.do(ctx, call{attempt: revoking, method: http.MethodDelete, url: e.iam(path), lane: engine.Revoking, repeatable: true})
	if gone(err) {
		return nil
	}
	return err
}

// eachAccount walks through the project's accounts.
func (e *Engine) eachAccount(ctx context.Context, visit func(serviceAccount) error) error {
	for next := ""; ; {
		var page struct {
			Accounts []serviceAccount `json:"accounts"`
			Next     string           `json:"nextPageToken"`
		}
		query := url.Values{"pageSize": {"100"}}
		if next != "" {
			query.Set("pageToken", next)
		}
		if err := e.do(ctx, get(listing, e.iam("projects/"+e.config.Project+"/serviceAccounts?"+query.Encode()), &page)); err != nil {
			return err
		}
		for _, a := range page.Accounts {
			if err := visit(a); err != nil {
				return err
			}
		}
		if next = page.Next; next == "" {
			return nil
		}
	}
}
