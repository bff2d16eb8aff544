package aws

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/scaivault/scaivault/engine"
)

// told is a source of keys whose answers the test decides.
type told struct {
	life  time.Duration
	away  bool
	hangs bool
	times int
}

func (s *told) Retrieve(ctx context.Context) (sdk.Credentials, error) {
	s.times++
	if s.hangs {
		<-ctx.Done()
		return sdk.Credentials{}, ctx.Err()
	}
	if s.away {
		return sdk.Credentials{}, errors.New("away")
	}
	return sdk.Credentials{AccessKeyID: "ASIA", SecretAccessKey: "s", SessionToken: "t", CanExpire: true, Expires: time.Now().Add(s.life)}, nil
}

func keep(s *told) hostKeys {
	return hostKeys{sdk.NewCredentialsCache(&steady{source: s, begin: func() {}, within: 5 * time.Second, log: slog.New(slog.DiscardHandler),
		explain: func(err error) *engine.Error { return failure(engine.Unreachable, "no keys", err) }})}
}

// Keys are taken anew five minutes before their end. While the source is away the present ones are used
// to their end, and it is asked every half a minute; then no others are, and what it says is told.
func TestKeysAreTakenAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &told{life: time.Hour}
		keys := keep(s)
		mustHave := func(want int) {
			t.Helper()
			if k, err := keys.Retrieve(t.Context()); err != nil || k.AccessKeyID == "" || s.times != want {
				t.Fatalf("taken %d times, want %d; %v", s.times, want, err)
			}
		}
		mustHave(1)
		time.Sleep(55*time.Minute - time.Second)
		mustHave(1)
		time.Sleep(2 * time.Second)
		mustHave(2)
		time.Sleep(56 * time.Minute)
		s.away = true
		mustHave(3)
		mustHave(3) // not at every request
		time.Sleep(31 * time.Second)
		mustHave(4)
		s.away = false
		time.Sleep(31 * time.Second)
		mustHave(5)
		s.away = true
		time.Sleep(time.Hour + time.Second)
		for want := 6; want < 8; want++ {
			if _, err := keys.Retrieve(t.Context()); engine.KindOf(err) != engine.Unreachable || s.times != want {
				t.Fatalf("keys that have ended: asked %d times, %v", s.times, err)
			}
		}
		s.away, s.life = false, 2*time.Minute // less than what they are taken ahead
		mustHave(8)
		time.Sleep(20 * time.Second)
		mustHave(8)
		time.Sleep(11 * time.Second)
		mustHave(9)
	})
}

// However many wait, the source is asked once; who has less time than it needs does not wait for it, and
// one that hangs is given up.
func TestKeysAreTakenOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &told{life: time.Hour, hangs: true}
		keys := keep(s)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Second)
				defer cancel()
				if _, err := keys.Retrieve(ctx); engine.KindOf(err) != engine.Unreachable {
					t.Errorf("%v", err)
				}
				if waited := time.Since(start); waited != min(time.Duration(i+1)*time.Second, 5*time.Second) {
					t.Errorf("the %dth waits %s", i, waited)
				}
			})
		}
		wg.Wait()
		if s.times != 1 {
			t.Errorf("asked %d times", s.times)
		}
	})
}
