package servertest

import "hash/fnv"

// User is the id of a user for the programs of a folder that no other test has, of whatever process: the
// kernel counts the processes of a user, and one test's may keep another's from being started.
func User(folder string) int {
	const first, users = 1 << 21, 1 << 28
	h := fnv.New32a()
	h.Write([]byte(folder))
	return first + int(h.Sum32()%users)
}
