package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// task is one piece of work of one caller, who has a connection of its own.
type task func(ctx context.Context, caller int) error

// sample is what one turn of one side came to.
type sample struct {
	elapsed   time.Duration
	latencies []time.Duration // sorted, one per piece of work
	cpu       time.Duration   // that the server used meanwhile
}

func (s sample) rate() float64 { return float64(len(s.latencies)) / s.elapsed.Seconds() }

// quantile is the latency that this share of the work does not exceed.
func (s sample) quantile(share float64) time.Duration {
	return s.latencies[min(int(float64(len(s.latencies))*share), len(s.latencies)-1)]
}

// during has callers repeat a task until the time is up.
func during(ctx context.Context, callers int, d time.Duration, t task) (sample, error) {
	end := time.Now().Add(d)
	return drive(ctx, callers, t, func() bool { return time.Now().Before(end) })
}

// times has callers do a task n times between them.
func times(ctx context.Context, callers, n int, t task) (sample, error) {
	var left atomic.Int64
	left.Store(int64(n))
	return drive(ctx, callers, t, func() bool { return left.Add(-1) >= 0 })
}

func drive(ctx context.Context, callers int, t task, more func() bool) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	latencies, failures := make([][]time.Duration, callers), make([]error, callers)
	begun := time.Now()
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for ctx.Err() == nil && more() {
				at := time.Now()
				if failures[caller] = t(ctx, caller); failures[caller] != nil {
					cancel()
					return
				}
				latencies[caller] = append(latencies[caller], time.Since(at))
			}
		})
	}
	wg.Wait()
	s := sample{elapsed: time.Since(begun), latencies: slices.Concat(latencies...)}
	slices.Sort(s.latencies)
	if err := errors.Join(failures...); err != nil {
		return s, err
	}
	if len(s.latencies) == 0 {
		return s, errors.New("nothing was done")
	}
	return s, ctx.Err()
}

// side is one turn of one side, with its own preparation and cleaning, which do
// not count.
type side func(context.Context) (sample, error)

// comparison holds the turns of both sides; turns of one index are neighbours.
// Where two sources are compared, direct is the younger.
type comparison struct{ direct, ours []sample }

// alternate gives both sides turns.
func alternate(ctx context.Context, rounds int, direct, ours side) (comparison, error) {
	samples, err := inTurns(ctx, rounds, direct, ours)
	return comparison{direct: samples[0], ours: samples[1]}, err
}

// inTurns gives each side its turn, round by round, and answers the samples of each side.
func inTurns(ctx context.Context, rounds int, sides ...side) ([][]sample, error) {
	samples := make([][]sample, len(sides))
	for range rounds {
		for i, take := range sides {
			s, err := take(ctx)
			if err != nil {
				return samples, err
			}
			samples[i] = append(samples[i], s)
		}
	}
	return samples, nil
}

// warm throws a first turn of each side away: it opens connections and fills
// caches.
func warm(ctx context.Context, rounds int, direct, ours side) (comparison, error) {
	if _, err := alternate(ctx, 1, direct, ours); err != nil {
		return comparison{}, err
	}
	return alternate(ctx, rounds, direct, ours)
}

// ratios are ours/direct of each round, sorted.
func (c comparison) ratios(of func(sample) float64) []float64 {
	var r []float64
	for i := range c.direct {
		r = append(r, of(c.ours[i])/of(c.direct[i]))
	}
	slices.Sort(r)
	return r
}

func medianOf(samples []sample, of func(sample) float64) float64 {
	var v []float64
	for _, s := range samples {
		v = append(v, of(s))
	}
	slices.Sort(v)
	return median(v)
}

// median of a sorted list.
func median(v []float64) float64 {
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

func rate(s sample) float64 { return s.rate() }

// cpu is what one piece of work costs the server, in microseconds.
func cpu(s sample) float64 {
	return float64(s.cpu.Microseconds()) / float64(len(s.latencies))
}

func p99(s sample) float64 { return float64(s.quantile(0.99)) / float64(time.Millisecond) }

func p50(s sample) float64 { return float64(s.quantile(0.5)) / float64(time.Millisecond) }
