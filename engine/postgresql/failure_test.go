package postgresql_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/statement"
)

// TestWordsHoldNoVerifier: a statement of the operator's can read pg_authid and fail with what it
// found; whoever may write statements does not get root's verifier by it.
func TestWordsHoldNoVerifier(t *testing.T) {
	t.Parallel()
	scram := statement.ScramSHA256("password", 4096, nil)
	for _, verifier := range []string{scram, scram[:60], "md5d41d8cd98f00b204e9800998ecf8427e"} {
		told := postgresql.Words(&pgconn.PgError{Code: "22P02", Message: `invalid input syntax for type integer: "` + verifier + `"`})
		if strings.Contains(told, verifier) || told != `invalid input syntax for type integer: "[redacted]"` {
			t.Errorf("told: %s", told)
		}
	}
}
