package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

// vault is a server of one lease in memory, whose clock is an hour ahead: no
// client may count on its own being right.
type vault struct {
	ttl, max time.Duration

	mu       sync.Mutex
	issued   time.Time
	expires  time.Time
	renewals []time.Time
	revoked  int
	fail     func() *api.ErrorDetail // what a renewal is refused with
	status   int
}

const serverAhead = time.Hour

// RoundTrip answers without a socket, so that time can be faked.
func (v *vault) RoundTrip(r *http.Request) (*http.Response, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	switch {
	case strings.Contains(r.URL.Path, "/creds/"):
		v.issued, v.expires = now, now.Add(v.ttl)
		return reply(201, api.Credential{
			LeaseID: "lease_1", Engine: "db", Role: "ro", Data: map[string]string{"username": "v_ro_1", "password": "hunter2"},
			TTL: int64(v.ttl / time.Second), Renewable: true,
			IssuedAt: now.Add(serverAhead), ExpiresAt: v.expires.Add(serverAhead), MaxExpiresAt: now.Add(serverAhead + v.max),
		})
	case strings.HasSuffix(r.URL.Path, "/renew"):
		if v.fail != nil {
			if e := v.fail(); e != nil {
				return reply(v.status, api.ErrorBody{Error: *e})
			}
		}
		if !now.Before(v.expires) {
			return reply(409, api.ErrorBody{Error: api.ErrorDetail{Code: "lease_expired"}})
		}
		v.renewals = append(v.renewals, now)
		v.expires = now.Add(v.ttl)
		if last := v.issued.Add(v.max); v.expires.After(last) {
			v.expires = last
		}
		renewed := now.Add(serverAhead)
		return reply(200, api.Lease{
			LeaseID: "lease_1", RenewedAt: &renewed,
			ExpiresAt: v.expires.Add(serverAhead), MaxExpiresAt: v.issued.Add(serverAhead + v.max),
		})
	case r.Method == http.MethodDelete:
		v.revoked++
		return reply(204, nil)
	}
	return reply(404, api.ErrorBody{Error: api.ErrorDetail{Code: "not_found"}})
}

func reply(status int, body any) (*http.Response, error) {
	var b bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&b).Encode(body); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(&b)}, nil
}

func (v *vault) lease(t *testing.T) *client.Lease {
	t.Helper()
	c, err := client.New(client.Config{URL: "http://vault", Token: "skt_test", HTTPClient: &http.Client{Transport: v}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.Generate(t.Context(), "db", "ro", client.GenerateOptions{TTL: v.ttl})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestKeepAliveRenewsUntilTheMaximumAndLeavesTimeToMoveOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &vault{ttl: time.Hour, max: 5 * time.Hour}
		l := v.lease(t)
		begin := time.Now()
		err := l.KeepAlive(t.Context())
		if !errors.Is(err, client.MaxTTLReached) {
			t.Fatalf("it ended with %v, want max_ttl_reached", err)
		}
		last := begin
		for _, at := range v.renewals {
			if since := at.Sub(last); since < 35*time.Minute || since > 40*time.Minute {
				t.Errorf("a life of an hour was renewed after %v", since)
			}
			last = at
		}
		end := begin.Add(v.max)
		if !v.expires.Equal(end) || !l.Expires().Equal(end) {
			t.Errorf("it ends at %v, and the lease says %v; want %v", v.expires, l.Expires(), end)
		}
		if left := time.Until(end); left < time.Minute {
			t.Errorf("%v are left to take a fresh one", left)
		}
	})
}

func TestKeepAliveTriesAgainWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &vault{ttl: time.Hour, max: 90 * time.Minute, status: 503}
		failures := 5
		v.fail = func() *api.ErrorDetail {
			if failures--; failures >= 0 {
				return &api.ErrorDetail{Code: "service_unavailable"}
			}
			return nil
		}
		if err := v.lease(t).KeepAlive(t.Context()); !errors.Is(err, client.MaxTTLReached) {
			t.Fatalf("it ended with %v, want max_ttl_reached", err)
		}
		if len(v.renewals) == 0 {
			t.Fatal("it never renewed")
		}
	})
}

func TestKeepAliveSaysWhenNoRenewalGotThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &vault{ttl: time.Hour, max: 24 * time.Hour, status: 503}
		v.fail = func() *api.ErrorDetail { return &api.ErrorDetail{Code: "service_unavailable"} }
		l := v.lease(t)
		err := l.KeepAlive(t.Context())
		if !errors.Is(err, client.LeaseExpired) || !errors.Is(err, client.ServiceUnavailable) {
			t.Fatalf("it ended with %v, want lease_expired for service_unavailable", err)
		}
		if left := time.Until(l.Expires()); left > time.Minute {
			t.Fatalf("it gave up %v before the end", left)
		}
	})
}

func TestKeepAliveEndsWithARefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &vault{ttl: time.Hour, max: 24 * time.Hour, status: 409}
		v.fail = func() *api.ErrorDetail { return &api.ErrorDetail{Code: "lease_revoked"} }
		begin := time.Now()
		if err := v.lease(t).KeepAlive(t.Context()); !errors.Is(err, client.LeaseRevoked) {
			t.Fatalf("it ended with %v, want lease_revoked", err)
		}
		if after := time.Since(begin); after > 41*time.Minute {
			t.Fatalf("a refusal was tried again until %v", after)
		}
	})
}

func TestCloseRevokesOnceAndEndsKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &vault{ttl: time.Hour, max: 24 * time.Hour}
		l := v.lease(t)
		ended := make(chan error, 1)
		go func() { ended <- l.KeepAlive(t.Context()) }()
		synctest.Wait()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := l.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := <-ended; err != nil {
			t.Errorf("keep alive ended with %v", err)
		}
		if v.revoked != 1 {
			t.Errorf("it was revoked %d times", v.revoked)
		}
	})
}

// A deferred Close runs after the work was cancelled: that is when it matters.
func TestCloseRevokesAlsoWhenTheContextIsDone(t *testing.T) {
	t.Parallel()
	v := &vault{ttl: time.Hour, max: 24 * time.Hour}
	l := v.lease(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); err != nil || v.revoked != 1 {
		t.Fatalf("revoked %d times: %v", v.revoked, err)
	}
}

func TestPrintingALeaseShowsNoCredential(t *testing.T) {
	t.Parallel()
	v := &vault{ttl: time.Hour, max: 24 * time.Hour}
	l := v.lease(t)
	if l.Username() != "v_ro_1" || l.Password() != "hunter2" {
		t.Fatalf("the credential is %q, %q", l.Username(), l.Password())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(verb, l); strings.Contains(text, "hunter2") || !strings.Contains(text, "lease_1") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("issued", "lease", l)
	slog.New(slog.NewTextHandler(&log, nil)).Info("issued", "lease", l)
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has %s", &log)
	}
}
