// Package builtin is the one list of the engines that ScaiVault comes with.
package builtin

import (
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/azure"
	"github.com/scaivault/scaivault/engine/mongodb"
	"github.com/scaivault/scaivault/engine/mysql"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/engine/redis"
)

// Types are all kinds of sources. Another engine is one more line.
func Types() []engine.Type {
	return []engine.Type{
		azure.Type{},
		mongodb.Type{},
		mysql.Type{},
		postgresql.Type{},
		redis.Type{},
	}
}
