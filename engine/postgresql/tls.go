package postgresql

import (
	"crypto/tls"

	"github.com/scaivault/scaivault/engine"
)

// tlsConfig is TLS with one host, verified as sslmode says.
func tlsConfig(certs *tls.Config, mode, host string) *tls.Config {
	cfg := certs.Clone()
	cfg.ServerName = host
	if mode == sslVerifyFull {
		return cfg
	}
	if mode == sslVerifyCA {
		engine.AnyName(cfg)
	} else {
		cfg.InsecureSkipVerify = true // the password is guarded by SCRAM, see newConnector
	}
	return cfg
}
