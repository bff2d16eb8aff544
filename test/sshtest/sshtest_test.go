package sshtest_test

import (
	"os"
	"os/exec"
	"os/user"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/test/sshtest"
)

// sshd lets in whom the CA signed, and no other key; and a certificate no more that is in the list.
func TestCertificates(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	h := sshtest.NewHost(t, sshtest.WithLines("TrustedUserCAKeys /etc/ssh/ca.pub", "RevokedKeys /etc/ssh/krl"))
	ca, key := sshtest.NewKey(t), sshtest.NewKey(t)
	copyFile(t, ca+".pub", h.Path("ca.pub"))
	sshtest.Keygen(t, "-q", "-k", "-f", h.Path("krl"))
	h.Boot(t)

	if _, err := h.Login(t, key, sshtest.User, "id -un"); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("a key without a certificate: %v", err)
	}
	sshtest.Keygen(t, "-q", "-s", ca, "-I", "test", "-n", sshtest.User, "-z", "7", key+".pub")
	if out, err := h.Login(t, key, sshtest.User, "id -un"); err != nil || out != sshtest.User+"\n" {
		t.Errorf("a certificate: %q, %v; sshd says %s", out, err, h.Log(t))
	}
	if _, err := h.Login(t, key, sshtest.Other, "id -un"); err == nil {
		t.Error("a certificate lets in as another user")
	}
	sshtest.Keygen(t, "-q", "-k", "-f", h.Path("krl"), key+"-cert.pub")
	if _, err := h.Login(t, key, sshtest.User, "id -un"); err == nil || !strings.Contains(h.Log(t), "revoked") {
		t.Errorf("a revoked certificate: %v; sshd says %s", err, h.Log(t))
	}
}

// A password is PAM's to judge; and the machine of the tests sees nothing of it.
func TestPAM(t *testing.T) {
	t.Parallel()
	if !sshtest.Available() {
		return
	}
	h := sshtest.NewHost(t, sshtest.WithPAM(
		"auth requisite pam_exec.so expose_authtok quiet /etc/ssh/verify", "auth required pam_permit.so",
		"account required pam_permit.so", "session required pam_permit.so"))
	verifier := "#!/bin/sh\n[ \"$(tr -d '\\0')\" = right-" + sshtest.User + " ] && [ \"$PAM_RHOST\" = 127.0.0.1 ]\n"
	if err := os.WriteFile(h.Path("verify"), []byte(verifier), 0o700); err != nil {
		t.Fatal(err)
	}
	h.Boot(t)
	if out, err := h.LoginPassword(t, "right-"+sshtest.User, sshtest.User, "id -un"); err != nil || out != sshtest.User+"\n" {
		t.Errorf("the right password: %q, %v; sshd says %s", out, err, h.Log(t))
	}
	if _, err := h.LoginPassword(t, "wrong", sshtest.User, "id -un"); err == nil {
		t.Error("a wrong password lets in")
	}
	if out, err := h.Enter(exec.Command("/bin/sh", "-c", "id -un "+sshtest.User+"; cat /etc/pam.d/sshd | wc -l")).CombinedOutput(); err != nil || string(out) != sshtest.User+"\n4\n" {
		t.Errorf("on the host: %s, %v", out, err)
	}
	if _, err := user.Lookup(sshtest.User); err == nil {
		t.Error("the user of the host is one of this machine")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
