package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/redistest"
	"github.com/scaivault/scaivault/test/servertest"
)

// redisServer is a Redis or Valkey that keeps its users in a file, which every save flushes.
type redisServer struct {
	server  *redistest.Server
	version string
	clients []*redis.Client // as root, of one connection each
}

func newRedis(ctx context.Context, s *servertest.Stand, kind string) (*redisServer, error) {
	r := &redisServer{server: redistest.Start(s, kind)}
	for line := range strings.Lines(fmt.Sprint(r.server.Do(s, "INFO", "server"))) {
		if version, ok := strings.CutPrefix(line, kind+"_version:"); ok {
			r.version = strings.TrimSpace(version)
		}
	}
	r.server.SetUp(s)
	for range most {
		c := r.server.Client(servertest.GuideRoot, servertest.GuidePassword)
		s.Cleanup(func() { _ = c.Close() }) // the server goes anyway
		r.clients = append(r.clients, c)
	}
	return r, ctx.Err()
}

func (r *redisServer) title() string {
	return map[string]string{redistest.Redis: "Redis ", redistest.Valkey: "Valkey "}[r.server.Kind] + r.version
}

func (*redisServer) root() string { return servertest.GuideRoot }

func (r *redisServer) describe() (config map[string]any, role client.Document) {
	return map[string]any{"plugin": "redis", "connection_url": "redis://{{username}}:{{password}}@" + r.server.Addr()},
		client.Document{"acl_rules": []string{"~app:*", "+@read"}}
}

// create makes a user as the engine does, and saves it, by one message. The second hash stands for
// the engine's mark.
func (r *redisServer) create(ctx context.Context, caller int, name string) error {
	hash := sha256.Sum256([]byte(statement.Password(nil).Reveal()))
	return r.send(ctx, caller, []any{"ACL", "SETUSER", name, "reset", "resetchannels", "~app:*", "+@read", fmt.Sprintf("#%x", hash), fmt.Sprintf("#%064x", 0), "on"})
}

func (r *redisServer) drop(ctx context.Context, names []string) error {
	command := []any{"ACL", "DELUSER"}
	for _, name := range names {
		command = append(command, name)
	}
	return r.send(ctx, 0, command)
}

// send sends a command with a save behind it.
func (r *redisServer) send(ctx context.Context, caller int, command []any) error {
	_, err := r.clients[caller].Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Do(ctx, command...)
		p.Do(ctx, "ACL", "SAVE")
		return nil
	})
	return err
}
