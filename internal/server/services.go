package server

import "github.com/scaivault/scaivault/internal/secret"

// Services is what the operations call. Each field is served by the table of its area.
type Services struct {
	Secrets *secret.Service
}
