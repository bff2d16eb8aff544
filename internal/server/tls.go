package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is read again when its files change, at a handshake and at most once a second: a
// renewed one needs no restart. One that cannot be read leaves the last good one in use.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   string
	looked  time.Time
}

// TLS is the configuration for serving with a certificate and key in PEM files: TLS 1.3 only,
// HTTP/2 and HTTP/1.1. Session tickets are off, so that no long-lived key decrypts old traffic.
func TLS(certFile, keyFile string, logger *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate:         c.get,
	}, nil
}

func (c *certificate) load() error {
	stamp := c.stampOf()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("load the TLS certificate: %w", err)
	}
	c.current, c.stamp = &pair, stamp
	return nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= time.Second {
		c.looked = now
		if c.stampOf() != c.stamp {
			if err := c.load(); err != nil {
				c.logger.Error("renewed TLS certificate cannot be read: the former stays in use", "error", err)
			} else {
				c.logger.Info("TLS certificate renewed")
			}
		}
	}
	return c.current, nil
}

// stampOf tells one state of the two files from another.
func (c *certificate) stampOf() string {
	stamp := ""
	for _, file := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(file); err == nil {
			stamp += fmt.Sprintf("%d %d;", info.ModTime().UnixNano(), info.Size())
		}
	}
	return stamp
}
