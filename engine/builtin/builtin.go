// Package builtin is the one list of the engines that ScaiVault comes with.
package builtin

import (
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/aws"
	"github.com/scaivault/scaivault/engine/azure"
	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/engine/gcp"
	"github.com/scaivault/scaivault/engine/mongodb"
	"github.com/scaivault/scaivault/engine/mysql"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/engine/redis"
	"github.com/scaivault/scaivault/engine/ssh"
)

// Types are all kinds of sources. Another engine is one more line. The programs of custom engines and
// the identity at AWS are the host's.
func Types(programs custom.Host, identity aws.Host) []engine.Type {
	return []engine.Type{
		aws.Type{Host: identity},
		custom.Type{Host: programs},
		gcp.Type{},
		azure.Type{},
		mongodb.Type{},
		mysql.Type{},
		postgresql.Type{},
		redis.Type{},
		ssh.Type{},
	}
}
