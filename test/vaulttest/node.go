package vaulttest

import "path/filepath"

// StartNodes runs several `scaivault server` on the shared store that the URL
// names, until the end of the test. They have one key and one administrator,
// whose token lasts over restarts. The program is Program or Failing.
func StartNodes(t TB, program string, count int, database string, env ...string) []*Server {
	t.Helper()
	key := filepath.Join(t.TempDir(), "seal.key")
	var nodes []*Server
	for range count {
		s := newServer(t, program, env)
		s.arguments = []string{"server"}
		s.env = append(s.env, "DATABASE_URL="+database, "SEAL_KEY_FILE="+key, "DATA_DIR="+s.Dir, "BIND_ADDRESS="+s.addr, "LOG_FORMAT=text")
		s.ready = s.serving
		if len(nodes) > 0 {
			s.token = nodes[0].token // the first node of an empty store has made it
		}
		s.Run(t)
		nodes = append(nodes, s)
	}
	return nodes
}
