package gcptest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"
)

// Holder is who was given a credential.
type Holder struct {
	server *Server
	token  string
}

// LogIn uses a credential as Google's own libraries do: a token as it is, a key, in base64, to get one.
func (s *Server) LogIn(ctx context.Context, accessToken, privateKeyData string) (*Holder, error) {
	if accessToken != "" {
		h := &Holder{s, accessToken}
		_, err := h.May(ctx, "projects/"+Project, "resourcemanager.projects.get")
		return h, err
	}
	text, err := base64.StdEncoding.DecodeString(privateKeyData)
	if err != nil {
		return nil, err
	}
	var file map[string]string
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("the key is no JSON of texts: %w", err)
	}
	c := jwt.Config{
		Email: file["client_email"], PrivateKey: []byte(file["private_key"]), PrivateKeyID: file["private_key_id"],
		Scopes: []string{"https://www.googleapis.com/auth/cloud-platform"}, TokenURL: s.URL() + "/token", Audience: file["token_uri"],
	}
	token, err := c.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, s.Client())).Token()
	if err != nil {
		return nil, err
	}
	return &Holder{s, token.AccessToken}, nil
}

// May tells whether the holder has a permission on a resource; an error is a token that is refused.
func (h *Holder) May(ctx context.Context, resource, permission string) (bool, error) {
	body, err := json.Marshal(map[string][]string{"permissions": {permission}})
	if err != nil {
		return false, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.server.URL()+"/v3/"+resource+":testIamPermissions", strings.NewReader(string(body)))
	if err != nil {
		return false, err
	}
	r.Header.Set("Authorization", "Bearer "+h.token)
	answer, err := h.server.Client().Do(r)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return false, errors.Join(errors.New(string(text)), err)
	}
	var has struct {
		Permissions []string `json:"permissions"`
	}
	err = json.Unmarshal(text, &has)
	return slices.Contains(has.Permissions, permission), err
}
