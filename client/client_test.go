package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

// serve starts a server that answers every request with h, and a client of it.
func serve(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	return serveWith(t, client.Config{Token: "skt_test"}, h)
}

func serveWith(t *testing.T, config client.Config, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	config.URL = s.URL
	c, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Request-ID", "req_1")
	answer(w, status, api.ErrorBody{Error: api.ErrorDetail{Code: code, Message: message, RequestID: "req_1", Details: map[string]any{"max_ttl": "1h"}}})
}

// A list of what is revoked may be larger than any other answer, and is bounded all the same.
func TestLargeDocument(t *testing.T) {
	t.Parallel()
	size := 17 << 20
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(make([]byte, size))
	})
	if list, err := c.SSHRevokedKeys(t.Context(), "hosts", nil); err != nil || len(list) != size {
		t.Errorf("%d bytes, %v", len(list), err)
	}
	size = 64<<20 + 1
	if list, err := c.SSHRevokedKeys(t.Context(), "hosts", nil); err == nil {
		t.Errorf("took %d bytes", len(list))
	}
}

func TestErrorsComeBackAsTheirCodes(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		refuse(w, http.StatusConflict, "lease_expired", "the lease is over")
	})
	_, err := c.RenewLease(t.Context(), "lease_1", api.RenewRequest{})
	if !errors.Is(err, client.LeaseExpired) || errors.Is(err, client.LeaseRevoked) {
		t.Fatalf("%v is not lease_expired alone", err)
	}
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *client.Error", err)
	}
	if e.Status != 409 || e.Message != "the lease is over" || e.RequestID != "req_1" || e.Details["max_ttl"] != "1h" || e.RetryAfter != time.Hour {
		t.Fatalf("something of the error was lost: %+v", e)
	}
}

func TestAnswersOfStrangersAreNamedSo(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"a proxy's page":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) },
		"a page of 200":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"a redirect":       func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"an error of null": func(w http.ResponseWriter, _ *http.Request) { answer(w, 500, map[string]any{"error": nil}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, h)
			if _, err := c.WhoAmI(t.Context()); !errors.Is(err, client.UnexpectedAnswer) {
				t.Fatalf("%v is not unexpected_answer", err)
			}
		})
	}
}

// A redirect would carry the token to whom the answer names.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	// Also where the caller's own client would.
	c := serveWith(t, client.Config{Token: "skt_test", HTTPClient: &http.Client{}}, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	if _, err := c.WhoAmI(t.Context()); err == nil {
		t.Fatal("a redirect was taken for an answer")
	}
	if elsewhere.Load() != 0 {
		t.Fatal("the redirect was followed")
	}
}

func TestAnEndlessAnswerIsRefused(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		block := strings.Repeat("x", 1<<20)
		for {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
	})
	if _, err := c.WhoAmI(t.Context()); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Fatalf("got %v", err)
	}
}

// Names from outside stay within their segment, whatever they hold.
func TestPathsAreEscaped(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.RequestURI)
		answer(w, 200, map[string]any{})
	})
	for _, try := range []struct {
		call func() error
		want string
	}{
		{func() error { _, err := c.Engine(t.Context(), "a/b?c"); return err }, "/v1/dynamic/engines/a%2Fb%3Fc"},
		{func() error { _, err := c.ReadSecret(t.Context(), "infra/x", 3); return err }, "/v1/secrets/infra/x?version=3"},
		{func() error { _, err := c.SecretVersions(t.Context(), "infra/x"); return err }, "/v1/secrets/infra/x:versions"},
	} {
		if err := try.call(); err != nil {
			t.Fatal(err)
		}
		if got := seen.Load(); got != try.want {
			t.Errorf("asked for %v, want %s", got, try.want)
		}
	}
	seen.Store("")
	for _, name := range []string{"", ".", ".."} {
		if _, err := c.RevokeLease(t.Context(), name, 0); !errors.Is(err, client.InvalidPath) {
			t.Errorf("%q: %v is not invalid_path", name, err)
		}
	}
	if seen.Load() != "" {
		t.Error("a path without its name was sent")
	}
}

func TestBusyServersAreAskedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	busy := func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			refuse(w, http.StatusServiceUnavailable, "service_unavailable", "starting")
			return
		}
		answer(w, 200, api.WhoAmI{IdentityID: "user:alice"})
	}
	me, err := serve(t, busy).WhoAmI(t.Context())
	if err != nil || me.IdentityID != "user:alice" || asked.Load() != 2 {
		t.Fatalf("got %v, %v after %d requests", me, err, asked.Load())
	}

	asked.Store(0)
	c := serve(t, busy)
	if _, err := c.Generate(t.Context(), "db", "role", client.GenerateOptions{}); !errors.Is(err, client.ServiceUnavailable) || asked.Load() != 1 {
		t.Fatalf("generate was sent %d times: %v", asked.Load(), err)
	}
	asked.Store(0)
	c = serveWith(t, client.Config{Retries: -1}, busy)
	if _, err := c.WhoAmI(t.Context()); !errors.Is(err, client.ServiceUnavailable) || asked.Load() != 1 {
		t.Fatalf("without retries it was sent %d times: %v", asked.Load(), err)
	}
}

func TestListsGoThroughAllPages(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("prefix") != "p" {
			refuse(w, http.StatusBadRequest, "invalid_request", "the filter was lost")
			return
		}
		if r.URL.Query().Get("cursor") == "" {
			next := "c2"
			answer(w, 200, api.SecretList{Secrets: []api.SecretListItem{{Path: "a"}, {Path: "b"}}, Page: api.Page{Cursor: &next, HasMore: true}})
			return
		}
		answer(w, 200, api.SecretList{Secrets: []api.SecretListItem{{Path: "c"}}})
	})
	secrets, err := client.Collect(c.Secrets(t.Context(), "p"))
	if err != nil || len(secrets) != 3 || secrets[2].Path != "c" {
		t.Fatalf("got %v, %v", secrets, err)
	}
}

func TestServiceAccountsTakeAndRenewTheirTokens(t *testing.T) {
	t.Parallel()
	var taken atomic.Int32
	c := serveWith(t, client.Config{ClientID: "id", ClientSecret: "secret"}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/auth/token" {
			if r.Header.Get("Authorization") != "" || r.FormValue("client_id") != "id" || r.FormValue("client_secret") != "secret" || r.FormValue("grant_type") != "client_credentials" {
				refuse(w, http.StatusUnauthorized, "token_invalid", "no")
				return
			}
			answer(w, 200, api.AccessToken{AccessToken: fmt.Sprintf("t%d", taken.Add(1)), ExpiresIn: 3600})
			return
		}
		if r.Header.Get("Authorization") != "Bearer t2" { // t1 was revoked
			refuse(w, http.StatusUnauthorized, "token_revoked", "no")
			return
		}
		answer(w, 200, api.WhoAmI{IdentityID: "sa:ci"})
	})
	for range 3 {
		if _, err := c.WhoAmI(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if taken.Load() != 2 {
		t.Fatalf("%d tokens were taken, want 2", taken.Load())
	}
}

func TestAWrongServiceAccountIsNotTriedForever(t *testing.T) {
	t.Parallel()
	c := serveWith(t, client.Config{ClientID: "id", ClientSecret: "wrong"}, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "no such client"})
	})
	var e *client.Error
	if _, err := c.WhoAmI(t.Context()); !errors.As(err, &e) || e.Code != "invalid_client" || e.Message != "no such client" {
		t.Fatalf("got %v", err)
	}
}

func TestURLsAreChecked(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "vault.example.com", "ftp://vault", "https://", "https://user:pw@vault", "https://vault?x=1"} {
		if _, err := client.New(client.Config{URL: url}); err == nil {
			t.Errorf("%q was accepted", url)
		} else if strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
	if c, err := client.New(client.Config{URL: "https://gate.example.com/vault/"}); err != nil || c.URL() != "https://gate.example.com/vault" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestWithoutADeadlineARequestStillEnds(t *testing.T) {
	t.Parallel()
	var deadline atomic.Bool
	c, err := client.New(client.Config{URL: "http://vault", HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		_, bounded := r.Context().Deadline()
		deadline.Store(bounded)
		return nil, errors.New("down")
	})}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(context.Background()); err == nil || !deadline.Load() {
		t.Fatalf("bounded: %v, %v", deadline.Load(), err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
