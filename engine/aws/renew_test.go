package aws_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// AWS itself refuses a renewal that comes to it after its deadline: it would override what was set since.
func TestRenewalIsFenced(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	var signed atomic.Pointer[string] // when the last policy was, as its request says
	seen := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if form, _ := url.ParseQuery(string(body)); form.Get("Action") == "PutUserPolicy" {
			at := r.Header.Get("X-Amz-Date")
			signed.Store(&at)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		a.front.ServeHTTP(w, r)
	}))
	t.Cleanup(seen.Close)
	a.endpoint = seen.URL
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	signed.Store(nil)
	deadline := time.Now().Add(time.Minute)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	if err := e.Renew(ctx, c.recipe, time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("20060102T150405Z", *signed.Load())
	if err != nil {
		t.Fatal(err)
	}
	if until := at.Add(5 * time.Minute); until.After(deadline) {
		t.Errorf("AWS takes it until %s, its deadline is %s", until, deadline)
	}
	revoke(t, e, c.recipe)
}
