package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// longestSocket is the length of a path that every system takes for a socket (unix(7)), less a reserve.
const longestSocket = 100

// sshKey is a key for one login. Its private part is nowhere but in this process: ssh has signatures
// made by an agent that listens in a folder which only its user can enter. A process that is killed
// leaves there a public key, a certificate, and a socket that nobody answers.
type sshKey struct {
	public   string // in the form of authorized_keys
	dir      string
	signer   ssh.PublicKey
	listener net.Listener
}

func (a *app) newSSHKey() (*sshKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	signer, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	k := &sshKey{public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer))), signer: signer}
	if k.dir, err = a.socketFolder(); err != nil {
		return nil, err
	}
	if k.listener, err = net.Listen("unix", k.path("agent")); err != nil { //nolint:noctx // at once or never
		k.close()
		return nil, fmt.Errorf("serve the key to ssh: %w", err)
	}
	go serveAgent(k.listener, keys)
	return k, nil
}

// socketFolder makes a folder (0700) whose path a socket can have, and ssh reads as it stands.
func (a *app) socketFolder() (string, error) {
	plain := func(r rune) bool {
		return r == '/' || r == '.' || r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	for _, base := range []string{a.env("XDG_RUNTIME_DIR"), a.env("TMPDIR"), "/tmp"} {
		if !filepath.IsAbs(base) || strings.IndexFunc(base, func(r rune) bool { return !plain(r) }) >= 0 {
			continue
		}
		dir, err := os.MkdirTemp(base, "scaivault-ssh-")
		if err != nil {
			continue
		}
		if len(filepath.Join(dir, "agent")) <= longestSocket {
			return dir, nil
		}
		_ = os.Remove(dir)
	}
	return "", errors.New("make a folder for the key: neither XDG_RUNTIME_DIR, TMPDIR nor /tmp can be written to")
}

// serveAgent answers until the listener is closed.
func serveAgent(l net.Listener, keys agent.Agent) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = agent.ServeAgent(keys, conn) // ends with the connection
		}()
	}
}

func (k *sshKey) path(name string) string { return filepath.Join(k.dir, name) }

// certify takes the certificate of the key, and answers whom it lets log in as.
func (k *sshKey) certify(signed string) (principals []string, err error) {
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(signed))
	cert, ok := parsed.(*ssh.Certificate)
	if err != nil || !ok || cert.CertType != ssh.UserCert || !bytes.Equal(cert.Key.Marshal(), k.signer.Marshal()) {
		return nil, errors.New("use the credential: it is no certificate of the key; does the engine sign certificates (mode ca), and the role those of users?")
	}
	for name, text := range map[string]string{"id.pub": k.public + "\n", "id-cert.pub": string(ssh.MarshalAuthorizedKey(cert))} {
		if err := os.WriteFile(k.path(name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("give ssh the certificate: %w", err)
		}
	}
	return cert.ValidPrincipals, nil
}

// options make ssh use the certificate first.
func (k *sshKey) options() []string {
	return []string{
		"-o", "IdentityAgent=" + k.path("agent"), "-o", "IdentityFile=" + k.path("id.pub"),
		"-o", "CertificateFile=" + k.path("id-cert.pub"), "-o", "IdentitiesOnly=yes",
	}
}

// close leaves nothing behind.
func (k *sshKey) close() {
	if k.listener != nil {
		_ = k.listener.Close()
	}
	_ = os.RemoveAll(k.dir)
}
