package api

import "time"

// Health answers as long as the process runs.
type Health struct {
	Status  string `json:"status"` // "ok"
	Version string `json:"version"`
}

// Readiness tells whether requests can be served, check by check: "ok" or why not.
type Readiness struct {
	Status string            `json:"status"` // "ready", "not_ready", or "quarantine": only looks are served
	Checks map[string]string `json:"checks"`
}

// DetailedHealth is the readiness and the state of every engine.
type DetailedHealth struct {
	Status        string            `json:"status"`
	Version       string            `json:"version"`
	Node          string            `json:"node"`
	Epoch         int64             `json:"epoch"`
	UptimeSeconds int64             `json:"uptime_seconds"`
	Checks        map[string]string `json:"checks"`
	Engines       []EngineSummary   `json:"engines"`
	Rotation      RotationHealth    `json:"rotation"`
	Clock         *Clock            `json:"clock"`
	Quarantine    *Quarantine       `json:"quarantine"` // null when the store never was in any
}

// Quarantine is the state of a store that may not be the newest copy of itself: while it is active
// nothing is issued, renewed, revoked or removed.
type Quarantine struct {
	Active     bool       `json:"active"`
	Reason     string     `json:"reason,omitempty"` // "restored" or "older_copy"; absent when it never was in any
	Detail     string     `json:"detail,omitempty"`
	Since      time.Time  `json:"since,omitzero"`
	RestoredAt *time.Time `json:"restored_at,omitempty"`
	ResumedAt  *time.Time `json:"resumed_at,omitempty"`
	ResumedBy  string     `json:"resumed_by,omitempty"`
}

// ResumeRequest ends the quarantine: OnlyCopy states that no other copy of the store goes on.
type ResumeRequest struct {
	OnlyCopy bool `json:"only_copy"`
}

// EngineSummary is an engine's state as last known, without asking the source.
type EngineSummary struct {
	Engine               string `json:"engine"`
	Status               string `json:"status"`
	ActiveLeases         int64  `json:"active_leases"`
	RevocationBacklog    int64  `json:"revocation_backlog"`
	OldestOverdueSeconds int64  `json:"oldest_overdue_seconds"`
	Orphans              int64  `json:"orphans"`
	Residues             int64  `json:"residues"`
}

// Version names the build.
type Version struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	GoVersion string `json:"go_version"`
	API       string `json:"api"` // "v1"
}

// Clock is the time by which credentials live and die, beside the clock of the store.
type Clock struct {
	State       string    `json:"state"` // "ok", "held", "shifted"
	Time        time.Time `json:"time"`  // the agreed time
	StoreClock  time.Time `json:"store_clock"`
	SkewSeconds int64     `json:"skew_seconds"` // of the store's clock before the agreed time
	HeldLeases  int64     `json:"held_leases"`  // that would have ended by the store's clock
}
