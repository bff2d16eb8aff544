// Command psql stands in for the real one on machines without it: it runs one
// query and prints the rows, as psql -At -c does.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

func main() {
	if err := run(context.Background(), os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, "psql:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, query string) error {
	conn, err := pgx.Connect(ctx, "") // from the PG… variables
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return err
	}
	for _, result := range results {
		for _, row := range result.Rows {
			fmt.Println(line(row))
		}
	}
	return nil
}

func line(row [][]byte) string {
	cells := make([]string, len(row))
	for i, cell := range row {
		cells[i] = string(cell)
	}
	return strings.Join(cells, "|")
}
