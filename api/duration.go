package api

import "github.com/scaivault/scaivault/internal/duration"

// Duration is a life time: read from "90s", "30m", "1h30m", "7d" or an integer of seconds, written
// as the normalised string. At least one second, at most ten years.
type Duration = duration.Duration
