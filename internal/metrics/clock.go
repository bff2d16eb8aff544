package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaivault/scaivault/api"
)

// clock reads the state of the store's clock when it is scraped.
type clock struct {
	read                func() (api.Clock, bool)
	skew, held, settled *prometheus.Desc
}

// Clock makes the gauges of the store's clock, read from the function at each scrape; false tells
// that it is not known. Call it once.
func (m *Metrics) Clock(read func() (api.Clock, bool)) {
	m.registry.MustRegister(&clock{
		read:    read,
		skew:    prometheus.NewDesc("scaivault_clock_skew_seconds", "The store's clock before the time by which leases live.", nil, nil),
		held:    prometheus.NewDesc("scaivault_clock_held_leases", "Leases that would have ended by the store's clock and are held back.", nil, nil),
		settled: prometheus.NewDesc("scaivault_clock_settled", "0 while a jump of the store's clock waits for a source's clock or an administrator, else 1.", nil, nil),
	})
}

// Describe implements prometheus.Collector.
func (c *clock) Describe(to chan<- *prometheus.Desc) {
	to <- c.skew
	to <- c.held
	to <- c.settled
}

// Collect implements prometheus.Collector.
func (c *clock) Collect(to chan<- prometheus.Metric) {
	s, ok := c.read()
	if !ok {
		return
	}
	settled := 1.0
	if s.State == "held" {
		settled = 0
	}
	to <- prometheus.MustNewConstMetric(c.skew, prometheus.GaugeValue, float64(s.SkewSeconds))
	to <- prometheus.MustNewConstMetric(c.held, prometheus.GaugeValue, float64(s.HeldLeases))
	to <- prometheus.MustNewConstMetric(c.settled, prometheus.GaugeValue, settled)
}
