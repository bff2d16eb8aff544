package vaulttest

import "path/filepath"

// Node is how one node of a shared store is run.
type Node struct {
	Program  string // Program, Failing, or another release
	Database string // the store, as this node reaches it
	KeyFile  string // the key of all nodes, made by the first one
	Token    string // of the administrator; "" for the first node of an empty store, which makes it
}

// StartNode runs `scaivault server` on a shared store until the end of the test.
// Its administrator's token lasts over restarts.
func StartNode(t TB, n Node, env ...string) *Server {
	t.Helper()
	s := newServer(t, n.Program, env)
	s.arguments = []string{"server"}
	s.env = append(s.env, "DATABASE_URL="+n.Database, "SEAL_KEY_FILE="+n.KeyFile, "DATA_DIR="+s.Dir, "BIND_ADDRESS="+s.addr, "LOG_FORMAT=text")
	s.ready, s.token = s.serving, n.Token
	s.Run(t)
	return s
}

// StartNodes runs several nodes on the shared store that the URL names. They
// have one key and one administrator.
func StartNodes(t TB, program string, count int, database string, env ...string) []*Server {
	t.Helper()
	n := Node{Program: program, Database: database, KeyFile: filepath.Join(t.TempDir(), "seal.key")}
	var nodes []*Server
	for range count {
		s := StartNode(t, n, env...)
		n.Token = s.Token()
		nodes = append(nodes, s)
	}
	return nodes
}
