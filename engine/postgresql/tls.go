package postgresql

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"github.com/scaivault/scaivault/engine"
)

// certificates are what the configuration's TLS secrets hold.
type certificates struct {
	roots  *x509.CertPool // nil: those of the system
	client []tls.Certificate
}

func loadCertificates(ctx context.Context, c *config, o engine.Options) (certificates, error) {
	var certs certificates
	if c.TLSCAPath != "" {
		data, err := o.Secret(ctx, c.TLSCAPath)
		if err != nil {
			return certs, misconfigured("read the secret of tls_ca_path", err)
		}
		certs.roots = x509.NewCertPool()
		if !certs.roots.AppendCertsFromPEM([]byte(data["certificate"].Reveal())) {
			return certs, misconfigured("the secret of tls_ca_path holds no PEM certificate in its field certificate", nil)
		}
	}
	if c.TLSCertPath != "" {
		data, err := o.Secret(ctx, c.TLSCertPath)
		if err != nil {
			return certs, misconfigured("read the secret of tls_cert_path", err)
		}
		pair, err := tls.X509KeyPair([]byte(data["certificate"].Reveal()), []byte(data["private_key"].Reveal()))
		if err != nil {
			return certs, misconfigured("the secret of tls_cert_path holds no matching PEM pair in its fields certificate and private_key", nil)
		}
		certs.client = []tls.Certificate{pair}
	}
	return certs, nil
}

func (c certificates) tlsConfig(mode, host string) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: c.roots, Certificates: c.client}
	if mode == sslVerifyFull {
		return cfg
	}
	cfg.InsecureSkipVerify = true // the password is guarded by SCRAM, see newConnector
	if mode == sslVerifyCA {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: c.roots, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		}
	}
	return cfg
}
