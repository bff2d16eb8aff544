package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"github.com/scaivault/scaivault/engine"
)

// loadTLS makes of the configuration's TLS secrets how servers are verified, and
// what they are shown. It is nil without TLS. The server's name is to be added.
func loadTLS(ctx context.Context, c *config, o engine.Options) (*tls.Config, error) {
	if !c.target.tls {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCAPath != "" {
		data, err := o.Secret(ctx, c.TLSCAPath)
		if err != nil {
			return nil, misconfigured("read the secret of tls_ca_path", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(data["certificate"].Reveal())) {
			return nil, misconfigured("the secret of tls_ca_path holds no PEM certificate in its field certificate", nil)
		}
	}
	if c.TLSCertPath != "" {
		data, err := o.Secret(ctx, c.TLSCertPath)
		if err != nil {
			return nil, misconfigured("read the secret of tls_cert_path", err)
		}
		pair, err := tls.X509KeyPair([]byte(data["certificate"].Reveal()), []byte(data["private_key"].Reveal()))
		if err != nil {
			return nil, misconfigured("the secret of tls_cert_path holds no matching PEM pair in its fields certificate and private_key", nil)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
