package ssh

import (
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// What must never be signed is not, whatever a role, a request or a plan has become on the way: sshd takes a
// certificate without principals for good for every account, and looks one without a serial up in no list.
func TestNeverSigned(t *testing.T) {
	t.Parallel()
	fields, err := makeRoot(keyEd25519)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := readRoot(fields)
	if err != nil {
		t.Fatal(err)
	}
	good := func() *request {
		return &request{key: ca.PublicKey(), kind: ssh.UserCert, principals: []string{"deploy"}, keyID: "lease", serial: 7, end: time.Now().Add(time.Hour)}
	}
	if _, err := certificate(good(), ca); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(q *request){
		"for every account": func(q *request) { q.principals = nil },
		"without a serial":  func(q *request) { q.serial = 0 },
		"already over":      func(q *request) { q.end = time.Now().Add(-time.Second) },
	} {
		q := good()
		spoil(q)
		if _, err := certificate(q, ca); err == nil {
			t.Errorf("a certificate is signed that is %s", name)
		}
	}
}
