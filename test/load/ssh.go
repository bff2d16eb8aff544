package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/client"
)

// certificates are signed by who has the key of a CA: there is no server. What is done by hand is a fresh
// key pair and its certificate, as the engine answers them.
type certificates struct {
	private string
	ca      ssh.Signer
}

func newCertificates() (*certificates, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	ca, err := ssh.NewSignerFromKey(key)
	return &certificates{string(pem.EncodeToMemory(block)), ca}, err
}

func (*certificates) title() string { return "SSH certificates" }
func (*certificates) root() string  { return "unused" }
func (*certificates) kind() string  { return "ssh" }

func (c *certificates) fields() map[string]string {
	return map[string]string{"private_key": c.private}
}

func (*certificates) describe() (config map[string]any, role client.Document) {
	return map[string]any{"krl_max_age": "1s"}, client.Document{"allowed_users": []string{"deploy"}, "generate_key": true}
}

func (c *certificates) create(ctx context.Context, _ int, name string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if _, err := ssh.MarshalPrivateKey(private, ""); err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // never fails
	now := time.Now()
	certificate := &ssh.Certificate{Key: key, Serial: binary.BigEndian.Uint64(serial[:]), CertType: ssh.UserCert, KeyId: name,
		ValidPrincipals: []string{"deploy"}, ValidAfter: uint64(now.Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix())}
	if err := certificate.SignCert(rand.Reader, c.ca); err != nil {
		return err
	}
	_ = ssh.MarshalAuthorizedKey(certificate)
	return ctx.Err()
}

func (*certificates) drop(context.Context, []string) error { return nil }
