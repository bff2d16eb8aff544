// Package metrics holds what Prometheus is told, in a registry of its own. Names are part of the
// contract (docs/api.md, "System"); labels only ever hold names that an administrator chose.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts what the server does. Its methods are safe for concurrent use, and on nil do
// nothing, so that parts can be tested without it.
type Metrics struct {
	registry *prometheus.Registry

	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec

	generated    *prometheus.CounterVec
	issueSteps   *prometheus.HistogramVec
	revocations  *prometheus.CounterVec
	lag          prometheus.Histogram
	rotations    *prometheus.CounterVec
	storeLatency *prometheus.HistogramVec
}

// New makes the metrics of one process.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("scaivault_requests_total", "Requests answered.", "method", "path_category", "status"),
		durations: histogram("scaivault_request_duration_seconds", "Time to answer a request.",
			prometheus.DefBuckets, "method", "path_category"),
		generated: counter("scaivault_leases_generated_total", "Credentials issued.", "engine", "role"),
		issueSteps: histogram("scaivault_issue_duration_seconds", "Time of each step of issuing a credential.",
			prometheus.ExponentialBuckets(0.0005, 2, 16), "engine", "step"),
		revocations: counter("scaivault_revocations_total", "Attempts to revoke a credential at the source.",
			"engine", "reason", "outcome"),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "scaivault_revocation_lag_seconds",
			Help:    "Time from when a credential should have been dead until it was.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2.5, 16)}),
		rotations: counter("scaivault_rotations_total", "Secrets whose turn to be rotated came.", "outcome"),
		storeLatency: histogram("scaivault_db_latency_seconds", "Time of a store operation.",
			prometheus.ExponentialBuckets(0.0001, 2.5, 14), "operation"),
	}
	m.registry.MustRegister(m.requests, m.durations, m.generated, m.issueSteps, m.revocations, m.lag, m.rotations, m.storeLatency,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Request counts an answer. The category is a route's, never a path that a caller chose.
func (m *Metrics) Request(method, category string, status int, took time.Duration) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(method, category, strconv.Itoa(status)).Inc()
	m.durations.WithLabelValues(method, category).Observe(took.Seconds())
}

// Issued counts a credential that was given out.
func (m *Metrics) Issued(engine, role string) {
	if m == nil {
		return
	}
	m.generated.WithLabelValues(engine, role).Inc()
}

// IssueStep tells how long a step of issuing took: "plan", "intent", "issue", "confirm".
func (m *Metrics) IssueStep(engine, step string, took time.Duration) {
	if m == nil {
		return
	}
	m.issueSteps.WithLabelValues(engine, step).Observe(took.Seconds())
}

// Revocation counts an attempt: outcome is "revoked", "residue" or "failed".
func (m *Metrics) Revocation(engine, reason, outcome string) {
	if m == nil {
		return
	}
	m.revocations.WithLabelValues(engine, reason, outcome).Inc()
}

// RevocationLag tells how late a credential died.
func (m *Metrics) RevocationLag(late time.Duration) {
	if m == nil {
		return
	}
	m.lag.Observe(late.Seconds())
}

// Quarantine makes the gauge of the store's state, read at each scrape. Call it once.
func (m *Metrics) Quarantine(active func() bool) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "scaivault_quarantine", Help: "1 while the store is in quarantine: nothing is issued, renewed or revoked.",
	}, func() float64 {
		if active() {
			return 1
		}
		return 0
	}))
}

// Rotation counts a rotation on schedule: outcome is "rotated", "failed", or "warned" where a person
// is to write the value.
func (m *Metrics) Rotation(outcome string) {
	if m == nil {
		return
	}
	m.rotations.WithLabelValues(outcome).Inc()
}

// RotationQueue makes the number of secrets whose rotation is due and not done read from the function
// at each scrape. Call it once.
func (m *Metrics) RotationQueue(depth func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "scaivault_rotation_queue_depth",
		Help: "Secrets whose value was to be replaced by now."}, depth))
}

// Store tells how long a store operation took: "write", "read", "ping".
func (m *Metrics) Store(operation string, took time.Duration) {
	if m == nil {
		return
	}
	m.storeLatency.WithLabelValues(operation).Observe(took.Seconds())
}
