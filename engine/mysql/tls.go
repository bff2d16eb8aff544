package mysql

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"

	"github.com/go-sql-driver/mysql"

	"github.com/scaivault/scaivault/engine"
)

// tlsConfig is TLS with one host, verified as the connection URL says.
func tlsConfig(certs *tls.Config, mode, host string) *tls.Config {
	cfg := certs.Clone()
	cfg.ServerName = host
	if mode == tlsVerifyCA {
		engine.AnyName(cfg)
	}
	return cfg
}

// withholdPassword keeps the driver from asking the server for a public key, and
// from sending the password under it: without TLS that key may be anybody's. The
// driver has no option for that, but takes a key from us. It gets one that nobody
// can decrypt by, so that where the server wants the password itself the login
// fails.
func withholdPassword(cfg *mysql.Config) (done func(), err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	cfg.ServerPubKey = "scaivault-" + rand.Text() // the driver's registry is of the process
	mysql.RegisterServerPubKey(cfg.ServerPubKey, &key.PublicKey)
	return func() { mysql.DeregisterServerPubKey(cfg.ServerPubKey) }, nil
}
