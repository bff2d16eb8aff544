package server

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowBodiesKeepNobodyOut sends more requests whose bodies never end than may be in flight, as
// anybody can, without a token.
func TestSlowBodiesKeepNobodyOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ok := func(*call) (*none, error) { return nil, nil }
		s := setup(Limits{InFlight: 2}, io.Discard, form("/form", "Take a form.", ok), get("/there", "Answer.", ok).open())
		var ends []io.Closer
		for range 3 {
			body, end := io.Pipe()
			ends = append(ends, end)
			r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/form", body)
			go s.Handler().ServeHTTP(httptest.NewRecorder(), r)
		}
		synctest.Wait()
		if status, e := ask(s, "/v1/there"); status != http.StatusNoContent {
			t.Errorf("another's request is answered %d %s", status, e.Code)
		}
		for _, end := range ends {
			_ = end.Close()
		}
		synctest.Wait()
	})
}

// TestPublicBodyIsSmall: who has no token cannot make the server hold much.
func TestPublicBodyIsSmall(t *testing.T) {
	t.Parallel()
	s := setup(Limits{}, io.Discard, form("/form", "Take a form.", func(*call) (*none, error) { return nil, nil }))
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/form", strings.NewReader(strings.Repeat("a", maxPublicBody+1))))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "16 KiB") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestLongWaitsLeaveRoom asks for long waits in all places but one: those beyond the quarter wait
// no longer than unasked, and each gives its place back.
func TestLongWaitsLeaveRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		waits := make(chan time.Duration, 8)
		s := setup(Limits{InFlight: 8}, io.Discard, get("/wait", "Wait.", func(c *call) (*none, error) {
			d := c.wait(waitOne)
			waits <- d
			time.Sleep(d)
			return nil, nil
		}).open().query(wait()))
		for range 2 {
			for range 7 {
				go ask(s, "/v1/wait?wait=10m")
			}
			synctest.Wait()
			long := 0
			for range 7 {
				if <-waits == maxWait {
					long++
				}
			}
			if long != 2 {
				t.Errorf("%d of 8 places are held for 10m, want 2", long)
			}
			time.Sleep(maxWait + time.Second)
		}
	})
}
