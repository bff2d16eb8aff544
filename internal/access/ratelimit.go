package access

import (
	"math"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/scaivault/scaivault/internal/fault"
)

// Limits are calls per minute and identity.
type Limits struct {
	Off       bool             // no limits at all: for benchmarks and tests
	PerMinute map[Category]int // overrides the defaults; 0 turns a category's off
}

// RateLimit is what a caller is told of its limit.
type RateLimit struct {
	Limit     int       // calls per minute
	Remaining int       // that would be let through now
	Reset     time.Time // when all of them would be
}

// defaultLimit is the limit of a category in calls per minute (docs/api.md, "Conventions").
func defaultLimit(c Category) int {
	switch c {
	case CategoryGenerate, CategoryLease, CategorySecretWrite, CategoryBatchRead, CategoryAuth, CategorySystem:
		return 100
	case CategoryDynamicAdmin:
		return 20
	case CategorySecretRead:
		return 1000
	case CategoryPolicy, CategoryAudit:
		return 50
	case CategoryPolicyTest:
		return 200
	case CategoryWhoAmI, CategoryVerify:
		return 300
	case CategoryUnauthenticated:
		return 100
	default:
		return 0
	}
}

// limiter holds a token bucket per caller and category, on this node. A bucket that was forgotten
// because very many others are in use begins again full.
type limiter struct {
	limits  Limits
	buckets *recent[bucket, *rate.Limiter]
}

type bucket struct {
	who      string // an identity with its tenant, or an address
	category Category
}

const maxBuckets = 1 << 15

func newLimiter(l Limits) *limiter {
	return &limiter{limits: l, buckets: newRecent[bucket, *rate.Limiter](maxBuckets)}
}

// take takes one call out of the bucket. The limit is nil where there is none.
func (l *limiter) take(who string, c Category) (*RateLimit, error) {
	perMinute := l.perMinute(c)
	if perMinute <= 0 {
		return nil, nil
	}
	b := l.buckets.getOr(bucket{who, c}, func() *rate.Limiter {
		return rate.NewLimiter(rate.Limit(float64(perMinute)/60), perMinute)
	})
	now := time.Now()
	allowed := b.AllowN(now, 1)
	left := max(b.TokensAt(now), 0)
	state := &RateLimit{
		Limit:     perMinute,
		Remaining: int(left),
		Reset:     now.Add(refill(float64(perMinute)-left, perMinute)),
	}
	if allowed {
		return state, nil
	}
	after := max(refill(1-left, perMinute), time.Second)
	return state, fault.New(fault.RateLimited, "this identity made more than %d calls of this kind in a minute; wait and try again", perMinute).
		After(after).With("limit", perMinute).With("category", string(c))
}

func (l *limiter) perMinute(c Category) int {
	if l.limits.Off {
		return 0
	}
	if n, ok := l.limits.PerMinute[c]; ok {
		return n
	}
	return defaultLimit(c)
}

// refill is how long n calls take to come back, in whole seconds as the headers tell them.
func refill(n float64, perMinute int) time.Duration {
	return time.Duration(math.Ceil(n*60/float64(perMinute))) * time.Second
}

// addressOf is what an address is limited by: whoever has one IPv6 address has its /64.
func addressOf(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Masked().String()
		}
	}
	return a.String()
}
