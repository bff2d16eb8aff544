package mysql

import (
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

// dialect tells the two kinds of servers apart.
type dialect int

const (
	mySQL dialect = iota
	mariaDB
)

func (d dialect) String() string {
	if d == mariaDB {
		return "MariaDB"
	}
	return "MySQL"
}

// maxName is how long the name of an account may be. MariaDB takes 128
// characters; people read these names.
func (d dialect) maxName() int {
	if d == mariaDB {
		return 80
	}
	return 32
}

// plugin is the way to log in of the accounts that are made.
func (d dialect) plugin() string {
	if d == mariaDB {
		return nativePlugin
	}
	return cachingPlugin
}

const (
	nativePlugin  = "mysql_native_password"
	cachingPlugin = "caching_sha2_password"
)

// hash is what the server keeps of a password, and is sent.
func (d dialect) hash(password statement.Secret) statement.Secret {
	if d == mariaDB {
		return statement.Secret(statement.NativePassword(password))
	}
	return statement.Secret(statement.CachingSHA2(password, nil))
}

// noPassword is a hash in form, of which nobody knows a password.
func (d dialect) noPassword() string {
	if d == mariaDB {
		return "*" + strings.Repeat("0", 40)
	}
	return "$A$005$" + strings.Repeat("0", 63)
}

// table is where the accounts are. mysql.user of MariaDB is a view, which is slower.
func (d dialect) table() string {
	if d == mariaDB {
		return "mysql.global_priv"
	}
	return "mysql.user"
}

// seeAccounts are the statements that let root see what accounts there are.
func (d dialect) seeAccounts(root string) string {
	if d == mariaDB {
		return "run GRANT SELECT ON mysql.global_priv TO " + root
	}
	return "run GRANT SELECT ON mysql.user TO " + root + " and GRANT SELECT ON mysql.role_edges TO " + root
}

// The first versions that have what is used here: comments of accounts, and
// accounts that can be locked; both work as root of their releases does.
const (
	oldestMySQL   = "8.0.21"
	oldestMariaDB = "10.6.0"
)

// parseVersion reads VERSION(), such as 8.0.21-log, 5.5.5-10.11.19-MariaDB.
func parseVersion(text string) (d dialect, supported bool) {
	if strings.Contains(strings.ToLower(text), "mariadb") {
		return mariaDB, !older(strings.TrimPrefix(text, "5.5.5-"), oldestMariaDB)
	}
	return mySQL, !older(text, oldestMySQL)
}

func older(version, oldest string) bool {
	a, b := numbers(version), numbers(oldest)
	for i := range b {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func numbers(version string) (n [3]int) {
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		version = version[:end]
	}
	for i, part := range strings.SplitN(version, ".", 4) {
		if i < len(n) {
			n[i], _ = strconv.Atoi(part)
		}
	}
	return n
}
