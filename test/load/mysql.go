package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mysqltest"
	"github.com/scaivault/scaivault/test/servertest"
)

// mySQL is a server of MySQL or MariaDB that flushes what it is told.
type mySQL struct {
	server  *mysqltest.Server
	version string
	conns   []*sql.Conn // as root
}

// directRole holds the rights of the accounts that the direct client makes in MySQL.
const directRole = "direct_reader"

func newMySQL(ctx context.Context, s *servertest.Stand, kind string) (*mySQL, error) {
	m := &mySQL{server: mysqltest.Start(s, kind, mysqltest.WithArguments("--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1", "--general-log=OFF"))}
	m.version, _, _ = strings.Cut(m.server.Query(s, "SELECT VERSION()")[0][0], "-")
	m.server.Exec(s, "CREATE DATABASE "+database)
	m.server.SetUp(s, servertest.GuideRoot, database)
	if kind == mysqltest.MySQL {
		m.server.Exec(s, "CREATE ROLE "+directRole, "GRANT SELECT ON "+database+".* TO "+directRole)
	}
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr, config.MultiStatements = servertest.GuideRoot, servertest.GuidePassword, "tcp", m.server.Addr(), true
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	s.Cleanup(func() { _ = db.Close() }) // the server goes anyway
	for range most {
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		m.conns = append(m.conns, c)
	}
	return m, nil
}

func (m *mySQL) title() string {
	return map[string]string{mysqltest.MariaDB: "MariaDB ", mysqltest.MySQL: "MySQL "}[m.server.Kind] + m.version
}

func (*mySQL) root() string { return servertest.GuideRoot }

func (m *mySQL) describe() (config map[string]any, role client.Document) {
	return map[string]any{"plugin": "mysql", "connection_url": "mysql://{{username}}:{{password}}@" + m.server.Addr() + "/" + database},
		client.Document{"privileges": []string{"SELECT ON " + database + ".*"}}
}

// create makes an account as the engine does, by one message. The comment, and the second way to log
// in of MariaDB, stand for the engine's mark.
func (m *mySQL) create(ctx context.Context, caller int, name string) error {
	account, password := "'"+name+"'@'%'", statement.Password(nil)
	if m.server.Kind == mysqltest.MySQL {
		return m.send(ctx, caller, fmt.Sprintf("CREATE USER %s IDENTIFIED WITH caching_sha2_password AS '%s' DEFAULT ROLE %s COMMENT 'made by hand'",
			account, statement.CachingSHA2(password, nil), directRole))
	}
	return m.send(ctx, caller,
		fmt.Sprintf("CREATE USER %s IDENTIFIED WITH mysql_native_password AS '%s' OR mysql_native_password AS '*%040x' ACCOUNT LOCK", account, statement.NativePassword(password), 0),
		"GRANT SELECT ON "+database+".* TO "+account,
		"ALTER USER "+account+" ACCOUNT UNLOCK")
}

func (m *mySQL) drop(ctx context.Context, names []string) error {
	return m.send(ctx, 0, "DROP USER IF EXISTS '"+strings.Join(names, "'@'%', '")+"'@'%'")
}

// send sends statements as one message.
func (m *mySQL) send(ctx context.Context, caller int, statements ...string) error {
	_, err := m.conns[caller].ExecContext(ctx, strings.Join(statements, ";\n"))
	return err
}
