// Package api holds the types of the wire contract (docs/api.md), shared by server, client and CLI.
//
// Times are RFC 3339 in UTC; durations in documents are [Duration].
package api
