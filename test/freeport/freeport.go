// Package freeport gives the servers of the tests their ports. Packages are tested at the same time,
// and a server may be down for a while and then wants its port again: so a port is held for the
// process that asked, not for the moment.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Below Linux's ephemeral range (32768 and up), where an outgoing connection may sit on a server's
// port while it is down.
const first, last, tries = 11000, 32767, 500

// Pick holds a port of 127.0.0.1 until this process ends, together with those that lie the given
// distances above it: no other caller gets one of them, in this process or another. Whoever takes
// ports without asking here is noticed only if they listen now.
func Pick(above ...int) (int, error) {
	for range tries {
		port := first + rand.IntN(last-first)
		if hold(port, above) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: %d between %d and %d are taken", tries, first, last)
}

// hold keeps what it holds even when a later one is taken: ports are plenty. It claims before it looks, for
// a look takes the port for a moment, in which who has claimed it could not listen.
func hold(port int, above []int) bool {
	for _, distance := range append([]int{0}, above...) {
		if p := port + distance; p > last || !claim(p) || !free(p) {
			return false
		}
	}
	return true
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // at once or never
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// claim binds an abstract socket named after the port, which the kernel gives to one and frees with
// the process, however it ends (unix(7)). The descriptor is never closed, and no child inherits it.
func claim(port int) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: "@scaivault-test-port-" + strconv.Itoa(port)}); err != nil {
		_ = syscall.Close(fd)
		return false
	}
	return true
}
