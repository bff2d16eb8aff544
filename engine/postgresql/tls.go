package postgresql

import (
	"crypto/tls"
	"crypto/x509"
)

// tlsConfig is TLS with one host, verified as sslmode says.
func tlsConfig(certs *tls.Config, mode, host string) *tls.Config {
	cfg := certs.Clone()
	cfg.ServerName = host
	if mode == sslVerifyFull {
		return cfg
	}
	cfg.InsecureSkipVerify = true // the password is guarded by SCRAM, see newConnector
	if mode == sslVerifyCA {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: certs.RootCAs, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		}
	}
	return cfg
}
