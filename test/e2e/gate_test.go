package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// gate stops creations in the midst of their transaction: the statements of its
// role wait at a lock that the test holds.
type gate struct {
	s    *source
	conn *pgx.Conn // to the source's database: advisory locks are of one
}

const gateKey = 4711

func newGate(t *testing.T, s *source) *gate {
	t.Helper()
	return &gate{s, s.server.Connect(t, pgtest.Superuser, s.server.SuperPassword(), s.db)}
}

func (g *gate) role(name string) client.Document {
	return client.Document{"name": name, "creation_statements": []string{
		fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d)", gateKey),
		`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
	}}
}

func (g *gate) close(t *testing.T) {
	t.Helper()
	run(t, g.conn, fmt.Sprintf("SELECT pg_advisory_lock(%d)", gateKey))
}

func (g *gate) open(t *testing.T) {
	t.Helper()
	run(t, g.conn, fmt.Sprintf("SELECT pg_advisory_unlock(%d)", gateKey))
}

// await waits until a creation stands at the gate, and tells the drawn name and
// the backend.
func (g *gate) await(t *testing.T) (username string, pid int) {
	t.Helper()
	eventually(t, 10*time.Second, "a creation stands at the gate", func() bool {
		err := g.conn.QueryRow(t.Context(), `SELECT substring(query FROM 'CREATE ROLE "(v_[a-z0-9_]+)"'), pid FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND query LIKE '%CREATE ROLE "v\_%' AND pid <> pg_backend_pid()`).Scan(&username, &pid)
		return err == nil
	})
	return username, pid
}

// wholeQueries lets pg_stat_activity show what stands behind the first 1024
// bytes of a message, too.
func wholeQueries() pgtest.Option { return pgtest.WithSetting("track_activity_query_size", "65536") }
