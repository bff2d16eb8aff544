package metrics

import "github.com/prometheus/client_golang/prometheus"

// EngineState is an engine at the moment of a scrape.
type EngineState struct {
	Engine   string
	Healthy  bool
	Active   int64 // leases that live
	Overdue  int64 // leases that should be dead and are not
	Orphans  int64 // accounts that no lease bears, as the last reconcile saw
	Residues int64 // dead accounts that could not be dropped
}

// engines reads the gauges of all engines when they are scraped: they are the store's own
// counters, so that there is no second truth to drift from it.
type engines struct {
	read                    func() []EngineState
	active, overdue, health *prometheus.Desc
	orphans, residues       *prometheus.Desc
}

// Engines makes the gauges of engines read from the function at each scrape. Call it once.
func (m *Metrics) Engines(read func() []EngineState) {
	label := []string{"engine"}
	m.registry.MustRegister(&engines{
		read:     read,
		active:   prometheus.NewDesc("scaivault_leases_active", "Leases that live.", label, nil),
		overdue:  prometheus.NewDesc("scaivault_leases_overdue", "Leases that should be dead and are not.", label, nil),
		health:   prometheus.NewDesc("scaivault_engine_health", "1 when the source answers as it should, else 0.", label, nil),
		orphans:  prometheus.NewDesc("scaivault_orphans", "Accounts of ours at the source that no lease bears, as the last reconcile saw.", label, nil),
		residues: prometheus.NewDesc("scaivault_residues", "Dead accounts that could not be dropped, at most 1000.", label, nil),
	})
}

// Describe implements prometheus.Collector.
func (e *engines) Describe(to chan<- *prometheus.Desc) {
	to <- e.active
	to <- e.overdue
	to <- e.health
	to <- e.orphans
	to <- e.residues
}

// Collect implements prometheus.Collector.
func (e *engines) Collect(to chan<- prometheus.Metric) {
	for _, s := range e.read() {
		up := 0.0
		if s.Healthy {
			up = 1
		}
		to <- prometheus.MustNewConstMetric(e.active, prometheus.GaugeValue, float64(s.Active), s.Engine)
		to <- prometheus.MustNewConstMetric(e.overdue, prometheus.GaugeValue, float64(s.Overdue), s.Engine)
		to <- prometheus.MustNewConstMetric(e.health, prometheus.GaugeValue, up, s.Engine)
		to <- prometheus.MustNewConstMetric(e.orphans, prometheus.GaugeValue, float64(s.Orphans), s.Engine)
		to <- prometheus.MustNewConstMetric(e.residues, prometheus.GaugeValue, float64(s.Residues), s.Engine)
	}
}
