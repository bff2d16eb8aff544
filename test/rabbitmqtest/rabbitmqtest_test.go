package rabbitmqtest_test

import (
	"testing"

	"github.com/scaivault/scaivault/test/rabbitmqtest"
)

// A user logs in with its own password only, and the server's log is where Log looks.
func TestLogin(t *testing.T) {
	t.Parallel()
	s, err := rabbitmqtest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	if err := s.AddUser("ann", "password of ann", ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Ask("PUT", "/api/permissions/%2F/ann", map[string]string{"configure": ".*", "write": ".*", "read": ".*"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Login(t.Context(), "ann", "another"); err == nil {
		t.Error("a wrong password is taken")
	}
	session, err := s.Login(t.Context(), "ann", "password of ann")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if !session.Works(t.Context()) {
		t.Error("the session does not work")
	}
	if text, err := s.Log(); err != nil || len(text) == 0 {
		t.Errorf("log: %v", err)
	}
}
