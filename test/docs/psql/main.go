// Command psql stands in for the real one on machines without it: it runs the query
// after -c, else standard input, and prints the rows as psql -At does.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "psql:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	query, err := queryOf(args)
	if err != nil {
		return err
	}
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

func queryOf(args []string) (string, error) {
	if n := len(args); n > 1 && args[n-2] == "-c" {
		return args[n-1], nil
	}
	text, err := io.ReadAll(os.Stdin)
	return string(text), err
}

func line(row [][]byte) string {
	cells := make([]string, len(row))
	for i, cell := range row {
		cells[i] = string(cell)
	}
	return strings.Join(cells, "|")
}
