package gcp

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// What a credential is.
const (
	keyCredential   = "service_account_key"
	tokenCredential = "access_token"
)

// Who makes the pair of a key.
const (
	uploadedKey = "uploaded"
	googleKey   = "google"
)

const (
	cloudPlatform = "https://www.googleapis.com/auth/cloud-platform"
	// tokenLife is the longest life of an access token, also of one made with a key; an organisation
	// can allow extendedLife for impersonation.
	tokenLife    = time.Hour
	extendedLife = 12 * time.Hour
	// Google allows 1,500 members in one policy; a role that needs many resources is a mistake.
	maxBindings = 20
)

// role is the engine's part of a role: of which account, with which rights, and in which form.
type role struct {
	CredentialType string    `json:"credential_type"`
	Account        string    `json:"service_account_email"`
	Bindings       []binding `json:"bindings"`
	TokenScopes    []string  `json:"token_scopes"`
	KeyOrigin      string    `json:"key_origin"`
	ExtendedTokens bool      `json:"extended_token_lifetime"`
}

// binding gives an account roles on a resource.
type binding struct {
	Resource string   `json:"resource"`
	Roles    []string `json:"roles"`
}

var (
	scopeForm = regexp.MustCompile(`^https://www\.googleapis\.com/auth/[a-z0-9._-]{1,100}$`)
	roleForm  = regexp.MustCompile(`^(|projects/[a-z][a-z0-9-]{4,28}[a-z0-9]/|organizations/[0-9]{1,20}/)roles/[A-Za-z0-9_.]{1,100}$`)
)

// parseRole decodes and checks a role. What Google knows and we do not, such as the permissions of
// its roles, it is asked when the role is saved.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	token := r.CredentialType == tokenCredential
	if err := (engine.Rules{
		{r.CredentialType != keyCredential && !token, `credential_type is neither "service_account_key" nor "access_token"`},
		{(r.Account == "") == (len(r.Bindings) == 0), "give either service_account_email, for an account that exists, or bindings, for one of the credential's own"},
		{r.Account != "" && accountOf(r.Account) == nil, "service_account_email is not the address of a service account, such as name@project.iam.gserviceaccount.com"},
		{!token && (r.TokenScopes != nil || r.ExtendedTokens), "token_scopes and extended_token_lifetime are for access tokens"},
		{token && r.KeyOrigin != "", "key_origin is for service account keys"},
		{!slices.Contains([]string{"", uploadedKey, googleKey}, r.KeyOrigin), `key_origin is neither "uploaded" nor "google"`},
		{r.KeyOrigin == googleKey && r.Account != "", "a key that Google makes bears no mark, so that one whose answer is lost could not be told from the keys of others: give bindings, for an account of the credential's own, or let the key be uploaded"},
		{len(r.Bindings) > maxBindings, "bindings name more than 20 resources"},
		{len(r.TokenScopes) > 20, "token_scopes are more than 20"},
	}).Check(); err != nil {
		return nil, err
	}
	for _, s := range r.TokenScopes {
		if !scopeForm.MatchString(s) {
			return nil, engine.Invalid("token_scopes: %.100q is not of the form %s", s, cloudPlatform)
		}
	}
	if token && len(r.TokenScopes) == 0 {
		r.TokenScopes = []string{cloudPlatform}
	}
	return r, r.checkBindings()
}

func (r *role) checkBindings() error {
	seen := map[string]bool{}
	for _, b := range r.Bindings {
		if _, ok := resourceOf(b.Resource); !ok {
			return engine.Invalid("bindings: %.100q is not a resource whose policy can be changed here: projects/ID, folders/NUMBER, organizations/NUMBER, projects/ID/serviceAccounts/EMAIL, projects/ID/topics/NAME, projects/ID/subscriptions/NAME or projects/ID/secrets/NAME", b.Resource)
		}
		if seen[b.Resource] {
			return engine.Invalid("bindings name %s twice: put its roles together", b.Resource)
		}
		seen[b.Resource] = true
		if len(b.Roles) == 0 || len(b.Roles) > maxBindings {
			return engine.Invalid("bindings: %s has no roles, or more than 20", b.Resource)
		}
		for i, name := range b.Roles {
			switch {
			case !roleForm.MatchString(name):
				return engine.Invalid("bindings: %.100q is not a role, such as roles/storage.objectViewer", name)
			case slices.Contains(b.Roles[:i], name):
				return engine.Invalid("bindings: %s has %s twice", b.Resource, name)
			case slices.Contains([]string{"roles/owner", "roles/editor", "roles/viewer"}, name):
				return engine.Invalid("bindings: the basic role %s cannot be given for a time: name roles that give what is needed, and no more", name)
			}
		}
	}
	return nil
}

// Bounds implements engine.Bounded. The end of a certificate, a token or a condition is where it was
// put when it was made.
func (r *role) Bounds() engine.Bounds {
	b := engine.Bounds{Fixed: true}
	switch {
	case r.CredentialType == tokenCredential && r.ExtendedTokens:
		b.Longest = extendedLife
	case r.CredentialType == tokenCredential:
		b.Longest = tokenLife
	}
	return b
}

// resources are those whose policies the role's accounts come into.
func (r *role) resources() []string {
	var names []string
	for _, b := range r.Bindings {
		names = append(names, b.Resource)
	}
	return names
}

// account is a service account by its address.
type account struct {
	project, email string
}

var accountForm = regexp.MustCompile(`^[a-z0-9-]{1,63}@([a-z0-9.-]{1,100})\.iam\.gserviceaccount\.com$`)

// accountOf reads an address; nil for what is none. The project is in it: the wildcard that Google
// offers in its place answers 403 where an account is gone.
func accountOf(email string) *account {
	found := accountForm.FindStringSubmatch(email)
	if found == nil {
		return nil
	}
	project, domain, scoped := strings.Cut(found[1], ".")
	if !projectForm.MatchString(project) || scoped && !hostForm.MatchString(domain) {
		return nil
	}
	if scoped { // example.com:project has the address name@project.example.com.iam…
		project = domain + ":" + project
	}
	return &account{project: project, email: email}
}

func (a *account) path() string { return "projects/" + a.project + "/serviceAccounts/" + a.email }
