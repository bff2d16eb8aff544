package script

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// Host is one that a script may speak to.
type Host struct {
	Scheme  string // "https", or "http" on this very machine
	Address string // host:port
}

// ParseHost reads "host", "host:port" or "https://host:port". What is sent by http could be read on its
// way, so that it stays on this machine.
func ParseHost(text string) (Host, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return Host{}, errors.New("write host, host:port or https://host:port")
	}
	h := hostOf(u)
	_, port, _ := net.SplitHostPort(h.Address) // hostOf has joined it
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0:
		return Host{}, errors.New("the port is not a number from 1 to 65535")
	case h.Scheme == "http" && !engine.Loopback(u.Hostname()):
		return Host{}, errors.New("http is for this machine only: write https")
	case h.Scheme != "http" && h.Scheme != "https":
		return Host{}, errors.New("the scheme is neither https nor http")
	}
	return h, nil
}

// Within tells whether one of the operator's patterns permits the host: "host", "host:port", or
// "*.example.com" for all below a domain, with a port or without one, which then is any.
func (h Host) Within(patterns []string) bool {
	name, port, _ := net.SplitHostPort(h.Address) // it was joined
	for _, pattern := range patterns {
		wanted, only, err := net.SplitHostPort(pattern)
		if err != nil {
			wanted, only = strings.Trim(pattern, "[]"), port
		}
		wanted = strings.ToLower(wanted)
		domain, below := strings.CutPrefix(wanted, "*")
		if only == port && (name == wanted || below && strings.HasPrefix(domain, ".") && strings.HasSuffix(name, domain)) {
			return true
		}
	}
	return false
}

// hostOf is where a URL leads, with its port.
func hostOf(u *url.URL) Host {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return Host{Scheme: u.Scheme, Address: net.JoinHostPort(strings.ToLower(u.Hostname()), port)}
}
