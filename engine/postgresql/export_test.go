package postgresql

import "github.com/jackc/pgx/v5/pgconn"

// Words is what may be told of the source's message.
func Words(pg *pgconn.PgError) string { return words(pg) }

// NormalGrants is the normal form of the entries of privileges.
func NormalGrants(entries []string) ([]string, error) {
	grants, err := parseGrants(entries)
	var normal []string
	for _, g := range grants {
		normal = append(normal, g.String())
	}
	return normal, err
}
