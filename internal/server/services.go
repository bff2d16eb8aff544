package server

import (
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/clock"
	"github.com/scaivault/scaivault/internal/identity"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/rotation"
	"github.com/scaivault/scaivault/internal/secret"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/witness"
)

// Services is what the operations call. Each field is served by the table of its area.
type Services struct {
	Secrets  *secret.Service
	Rotation *rotation.Service
	Sources  *source.Service
	Leases   *lease.Manager

	Policies   *access.Policies
	Identities *identity.Service
	Audit      *audit.Service
	Witness    *witness.Service
	Clock      *clock.Guard
}
