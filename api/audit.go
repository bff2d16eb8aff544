package api

import "time"

// AuditEntry is one entry of the audit chain. It holds allow-listed fields only, never a secret.
type AuditEntry struct {
	ID           string         `json:"id"`
	Timestamp    time.Time      `json:"timestamp"`
	Action       string         `json:"action"`
	IdentityType string         `json:"identity_type"`
	IdentityID   string         `json:"identity_id"`
	SecretPath   string         `json:"secret_path"` // or the virtual path that was judged
	SourceIP     string         `json:"source_ip"`
	UserAgent    string         `json:"user_agent"`
	Success      bool           `json:"success"`
	DurationMS   int64          `json:"duration_ms"`
	RequestID    string         `json:"request_id"`
	ExtraData    map[string]any `json:"extra_data,omitempty"`
}

// AuditList is a page of entries, newest first.
type AuditList struct {
	Logs []AuditEntry `json:"logs"`
	Page
}

// AuditSummary counts entries of a period.
type AuditSummary struct {
	From    time.Time          `json:"from"`
	To      time.Time          `json:"to"`
	Total   int64              `json:"total"`
	Failed  int64              `json:"failed"`
	Actions []AuditActionCount `json:"actions"`
}

// AuditActionCount is a line of the summary.
type AuditActionCount struct {
	Action string `json:"action"`
	OK     int64  `json:"ok"`
	Failed int64  `json:"failed"`
}

// AuditVerification is the result of recomputing the chains.
type AuditVerification struct {
	OK     bool          `json:"ok"`
	Chains []ChainReport `json:"chains"`
}

// ChainReport is one node's chain. FirstBroken names the first entry that does not verify.
type ChainReport struct {
	Node        string `json:"node"`
	Entries     int64  `json:"entries"`
	FirstSeq    int64  `json:"first_seq"`
	LastSeq     int64  `json:"last_seq"`
	OK          bool   `json:"ok"`
	FirstBroken string `json:"first_broken,omitempty"`
	Problem     string `json:"problem,omitempty"`
}
