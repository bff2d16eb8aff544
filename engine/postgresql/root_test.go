package postgresql_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/pgtest"
)

// One changes the password of a role at a time, whoever else there is: two that took turns would leave
// at the source what one of them set and in the store what the other did.
func TestOneRotatesAtTheSource(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 17), createRole)
	e := s.open(t, nil)
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	login := func(password string) error {
		conn, err := pgx.Connect(t.Context(), s.server.URL(s.root, password, s.db))
		if err == nil {
			err = conn.Close(t.Context())
		}
		return err
	}

	other, err := pgx.Connect(t.Context(), s.server.URL(s.root, s.password, s.db))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	const lock = "(1398164564::int8 << 32 | (SELECT oid::int8 FROM pg_roles WHERE rolname = current_user))"
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_lock("+lock+")"); err != nil {
		t.Fatal(err)
	}
	var failed *engine.Error
	if err := e.SetRoot(t.Context(), candidate); !errors.As(err, &failed) || failed.Kind != engine.Busy {
		t.Errorf("while another rotates: %v, want busy", err)
	}
	if err := login(s.password); err != nil {
		t.Errorf("the present password: %v", err)
	}
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_unlock("+lock+")"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and once more, as after an answer that was lost
		if err := e.SetRoot(t.Context(), candidate); err != nil {
			t.Fatal(err)
		}
	}
	if err := login(candidate["password"].Reveal()); err != nil {
		t.Errorf("the next password: %v", err)
	}
	if login(s.password) == nil {
		t.Error("the former password still works")
	}
}
