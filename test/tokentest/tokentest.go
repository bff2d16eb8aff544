// Package tokentest is a service whose tokens have names and ends: the source of an example script.
// It is no product of anybody's; it does what its guide says, over real HTTP.
package tokentest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Service is one service. It is an http.Handler.
type Service struct {
	ID   string // it survives nothing: a service that is made anew is another
	Root string // the token that may manage the others

	mu     sync.Mutex
	tokens map[string]*token // by id
}

type token struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Label     string    `json:"label"`
	Scopes    []string  `json:"scopes"`
	ExpiresAt time.Time `json:"expires_at"`
	NotAfter  time.Time `json:"not_after,omitzero"` // of a request to make one
	Token     string    `json:"token,omitempty"`    // in the answer to that only

	value string
}

// New is a service without tokens but its root's.
func New() *Service { return &Service{ID: rand.Text(), Root: rand.Text(), tokens: map[string]*token{}} }

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/tokens")
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet && path == "/self":
		s.self(w, bearer)
	case bearer != s.Root:
		w.WriteHeader(http.StatusForbidden)
	case r.Method == http.MethodGet:
		s.list(w, r)
	case r.Method == http.MethodPost:
		s.create(w, r)
	default:
		s.change(w, r, strings.TrimPrefix(path, "/"))
	}
}

func (s *Service) self(w http.ResponseWriter, bearer string) {
	scopes := []string{"tokens:manage"}
	if bearer != s.Root {
		t := s.valid(bearer)
		if t == nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		scopes = t.Scopes
	}
	answer(w, http.StatusOK, map[string]any{"service_id": s.ID, "scopes": scopes})
}

func (s *Service) valid(value string) *token {
	for _, t := range s.tokens {
		if t.value == value && time.Now().Before(t.ExpiresAt) {
			return t
		}
	}
	return nil
}

func (s *Service) list(w http.ResponseWriter, r *http.Request) {
	found := []*token{}
	for _, t := range s.tokens {
		name, label := r.URL.Query().Get("name"), r.URL.Query().Get("label")
		if (name == "" || t.Name == name) && (label == "" || t.Label == label) {
			found = append(found, t)
		}
	}
	answer(w, http.StatusOK, map[string]any{"tokens": found})
}

func (s *Service) create(w http.ResponseWriter, r *http.Request) {
	t := &token{ID: rand.Text(), value: rand.Text()}
	if json.NewDecoder(r.Body).Decode(t) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if !t.NotAfter.IsZero() && time.Now().After(t.NotAfter) {
		w.WriteHeader(http.StatusConflict)
		return
	}
	t.NotAfter = time.Time{}
	s.tokens[t.ID] = t
	made := *t
	made.Token = t.value
	answer(w, http.StatusCreated, made)
}

func (s *Service) change(w http.ResponseWriter, r *http.Request, id string) {
	t := s.tokens[id]
	var wanted struct {
		ExpiresAt time.Time `json:"expires_at"`
	}
	switch {
	case t == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(s.tokens, id)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch && json.NewDecoder(r.Body).Decode(&wanted) == nil:
		t.ExpiresAt = wanted.ExpiresAt
		answer(w, http.StatusOK, t)
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone: it will ask again
}

// Add makes a token of a stranger.
func (s *Service) Add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := rand.Text()
	s.tokens[id] = &token{ID: id, Name: name, Label: "theirs", value: rand.Text(), ExpiresAt: time.Now().Add(time.Hour)}
}

// Names are those of all tokens.
func (s *Service) Names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range maps.Values(s.tokens) {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names
}

// End is the end of the token of a name; zero without one.
func (s *Service) End(name string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if t.Name == name {
			return t.ExpiresAt
		}
	}
	return time.Time{}
}

// Works tells whether the service takes a token, by asking it at its address.
func Works(ctx context.Context, address, value string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/tokens/self", nil)
	if err != nil {
		return false
	}
	request.Header.Set("Authorization", "Bearer "+value)
	transport := &http.Transport{DialContext: new(net.Dialer).DialContext, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
