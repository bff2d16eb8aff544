package api

import "time"

// WhoAmI describes the caller.
type WhoAmI struct {
	IdentityID     string     `json:"identity_id"`
	IdentityType   string     `json:"identity_type"`
	DisplayName    string     `json:"display_name"`
	TenantID       string     `json:"tenant_id"`
	PartnerID      *string    `json:"partner_id"`
	Scopes         []string   `json:"scopes"`
	Groups         []string   `json:"groups"`
	Roles          []string   `json:"roles"`
	MFAVerifiedAt  *time.Time `json:"mfa_verified_at"`
	TokenExpiresAt *time.Time `json:"token_expires_at"`
}

// TokenRequest makes a personal access token of the caller.
type TokenRequest struct {
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`               // the caller's own when absent
	ExpiresIn *Duration `json:"expires_in,omitempty"` // 90d when absent, at most the maker's own end
}

// Token is a personal access token; Token itself is shown once, at creation.
type Token struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	IdentityID string    `json:"identity_id"`
	Token      string    `json:"token,omitempty"`
	Scopes     []string  `json:"scopes"`
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// TokenList is a page of tokens.
type TokenList struct {
	Tokens []Token `json:"tokens"`
	Page
}

// ServiceAccountRequest makes a service account.
type ServiceAccountRequest struct {
	Name   string   `json:"name"`
	Scopes []string `json:"scopes"`
}

// ServiceAccount is an identity for programs; ClientSecret is shown once, at creation.
type ServiceAccount struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	IdentityID   string    `json:"identity_id"`
	ClientID     string    `json:"client_id"`
	ClientSecret string    `json:"client_secret,omitempty"`
	Scopes       []string  `json:"scopes"`
	CreatedAt    time.Time `json:"created_at"`
}

// ServiceAccountList is a page of service accounts.
type ServiceAccountList struct {
	ServiceAccounts []ServiceAccount `json:"service_accounts"`
	Page
}

// AccessToken answers the client-credentials grant (RFC 6749 section 5.1).
type AccessToken struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"` // Bearer
	ExpiresIn   int64  `json:"expires_in"` // seconds
	Scope       string `json:"scope"`
}

// IntrospectRequest asks about a token.
type IntrospectRequest struct {
	Token string `json:"token"`
}

// Introspection describes a token (RFC 7662 section 2.2); only Active for one that is not alive.
type Introspection struct {
	Active    bool   `json:"active"`
	Sub       string `json:"sub,omitempty"`
	Scope     string `json:"scope,omitempty"`
	TenantID  string `json:"tenant_id,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	TokenID   string `json:"token_id,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	ExpiresAt int64  `json:"exp,omitempty"`
}
