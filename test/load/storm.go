package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
)

const (
	// stormCallers issue while the leases of a storm expire.
	stormCallers = 8
	// calm is how long issuing is measured without a storm.
	calm = 5 * time.Second
	// stormLag is what a lease may outlive its end by, beyond what the source itself needs to kill
	// them all.
	stormLag = time.Second
)

// storm measures what happens when many leases end within one second, while others are issued: how
// late each dies, against the time that the source needs for them from the direct client while the
// same is issued, and how much slower issuing is meanwhile.
func (b *bench) storm(ctx context.Context, r *rig) error {
	n := 2000
	if b.quick {
		n = 500
	}
	b.say("PostgreSQL %s: %d leases end in one second", r.title(), n)
	drain, err := r.directStorm(ctx, n)
	if err != nil {
		return err
	}
	before, err := during(ctx, stormCallers, calm, r.issue(usual, member))
	if err != nil {
		return err
	}
	ends, err := r.stockUntil(ctx, n)
	if err != nil {
		return err
	}
	meanwhile, err := r.outlast(ctx, ends)
	if err != nil {
		return err
	}
	lags, err := r.lags(ctx)
	if err != nil {
		return err
	}
	if len(lags) != n {
		return fmt.Errorf("%d leases were made to end together, and %d died", n, len(lags))
	}
	late := sample{latencies: lags}.quantile(0.99)
	beyond := max(0, late-drain)
	row := func(what, value, aim string) {
		b.report.figure("storm", fmt.Sprintf("%s, %d leases that end in one second: %s", r.title(), n, what), value, aim)
	}
	row("killing them all from the direct client, while it issues", seconds(drain), "")
	row("how late they died: half of them, p99, the last", fmt.Sprintf("%s, %s, %s", seconds(sample{latencies: lags}.quantile(0.5)), seconds(late), seconds(lags[n-1])), "")
	row("p99 beyond the direct client's time", seconds(beyond), fmt.Sprintf("≤ %s: %s", seconds(stormLag), met(beyond <= stormLag)))
	ratio := p99(meanwhile) / p99(before)
	row(fmt.Sprintf("p99 of issuing with %d callers before and meanwhile", stormCallers),
		fmt.Sprintf("%.0f ms and %.0f ms, **%.2f**", p99(before), p99(meanwhile), ratio), fmt.Sprintf("≤ 3.00: %s", met(ratio <= 3)))
	row("credentials/s before and meanwhile", fmt.Sprintf("%.0f and %.0f", before.rate(), meanwhile.rate()), "")
	return nil
}

func met(is bool) string {
	if is {
		return "met"
	}
	return "**missed**"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// directStorm is how long the direct client takes to kill n accounts while it issues.
func (r *rig) directStorm(ctx context.Context, n int) (time.Duration, error) {
	names, err := r.direct.stock(ctx, n, false)
	if err != nil {
		return 0, err
	}
	var took time.Duration
	killers := r.direct.conns[stormCallers : stormCallers+batchConns]
	_, err = r.until(ctx, r.direct.issue(4096), func(ctx context.Context) error {
		next := handOut(slices.Collect(slices.Chunk(names, batchSize)))
		s, err := times(ctx, batchConns, (n+batchSize-1)/batchSize, func(ctx context.Context, caller int) error {
			return r.direct.kill(ctx, killers[caller], next(), false)
		})
		took = s.elapsed
		return err
	})
	return took, errors.Join(err, r.sweep(ctx))
}

// until issues as long as work takes.
func (r *rig) until(ctx context.Context, issue task, work func(context.Context) error) (s sample, err error) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		s, failed = drive(ctx, stormCallers, issue, func() bool {
			select {
			case <-done:
				return false
			default:
				return true
			}
		})
	})
	err = work(ctx)
	close(done)
	wg.Wait()
	return s, errors.Join(err, failed)
}

// stockUntil makes n leases that end within one second, which begins at the moment it answers.
func (r *rig) stockUntil(ctx context.Context, n int) (ends time.Time, err error) {
	// Lives are whole seconds, and none is shorter than 10 s at the making of the last.
	ends = time.Now().Add(10*time.Second + time.Duration(n)*15*time.Millisecond)
	path := "/v1/dynamic/engines/" + fast + "/creds/" + filler
	_, err = times(ctx, 8, n, func(ctx context.Context, caller int) error {
		life := time.Until(ends).Truncate(time.Second) + time.Second
		_, err := r.callers[caller].do(ctx, "POST", path, fmt.Sprintf(`{"ttl":"%ds"}`, int(life/time.Second)), 201)
		return err
	})
	if err == nil && time.Now().After(ends) {
		err = errors.New("make leases that end together: the machine is too slow, they ended before all were made")
	}
	return ends, err
}

// outlast issues from the moment when the leases begin to end until all are dead.
func (r *rig) outlast(ctx context.Context, ends time.Time) (sample, error) {
	select {
	case <-time.After(time.Until(ends)):
	case <-ctx.Done():
		return sample{}, ctx.Err()
	}
	return r.until(ctx, r.issue(usual, member), func(ctx context.Context) error {
		time.Sleep(time.Second) // in which the last of them ends
		watcher := r.vault.caller()
		defer watcher.close()
		for {
			living := 0
			for _, status := range []api.LeaseStatus{api.LeaseActive, api.LeaseRevoking} {
				list, err := leasesOf(ctx, watcher, url.Values{"engine": {fast}, "role": {filler}, "status": {string(status)}, "limit": {"1"}})
				if err != nil {
					return err
				}
				living += len(list.Leases)
			}
			if living == 0 {
				return nil
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// lags are how much each lease of the storm outlived its end, sorted.
func (r *rig) lags(ctx context.Context) (lags []time.Duration, err error) {
	query := url.Values{"engine": {fast}, "role": {filler}, "status": {string(api.LeaseRevoked)}, "limit": {"1000"}}
	for {
		list, err := leasesOf(ctx, r.callers[0], query)
		if err != nil {
			return nil, err
		}
		for _, l := range list.Leases {
			lags = append(lags, l.RevokedAt.Sub(l.ExpiresAt))
		}
		if list.Cursor == nil {
			slices.Sort(lags)
			return lags, nil
		}
		query.Set("cursor", *list.Cursor)
	}
}

func leasesOf(ctx context.Context, c *caller, query url.Values) (list api.LeaseList, err error) {
	text, err := c.do(ctx, "GET", "/v1/dynamic/leases?"+query.Encode(), "", 200)
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	return list, err
}
