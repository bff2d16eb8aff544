package custom

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/scaivault/scaivault/internal/dial"
	"github.com/scaivault/scaivault/internal/sandbox"
)

// Host is what the operator of the server says of programs: no part of the API.
type Host struct {
	// Programs is the folder of the programs that engines may run, absolute and without links; empty
	// for none.
	Programs string
	// User is whom they run as; nil for the server's own user, which root is not.
	User *sandbox.User
	// Sandbox runs what is not trusted.
	Sandbox *sandbox.Sandbox

	// ScriptHosts are the hosts that scripts may speak to, where the engine's configuration names them,
	// too: as script.Host.Within reads them.
	ScriptHosts []string
	// ScriptNetworks are the loopback and private networks that these hosts may be in. Public
	// addresses need no mention, and metadata services and this server itself are out of reach always.
	ScriptNetworks []netip.Prefix
	// Resolver finds the addresses of hosts for scripts; the system's when nil.
	Resolver dial.Resolver
}

// NewHost reads what the operator has set: a folder, and a user by name or as UID:GID; empty ones for
// none.
func NewHost(programs, userName string, box *sandbox.Sandbox) (Host, error) {
	h := Host{Sandbox: box}
	if programs == "" {
		return h, nil
	}
	var err error
	if h.User, err = findUser(userName); err != nil {
		return h, fmt.Errorf("CUSTOM_PROGRAMS_USER: %w", err)
	}
	if h.Programs, err = filepath.Abs(programs); err == nil {
		h.Programs, err = filepath.EvalSymlinks(h.Programs)
	}
	if err != nil {
		return h, fmt.Errorf("CUSTOM_PROGRAMS_DIR: find the folder: %w", err)
	}
	if err := guarded(h.Programs); err != nil {
		return h, fmt.Errorf("CUSTOM_PROGRAMS_DIR: %w", err)
	}
	return h, nil
}

func findUser(name string) (*sandbox.User, error) {
	if name == "" {
		if os.Getuid() == 0 {
			return nil, errors.New("the server runs as root, and no program does: name a user for them")
		}
		return nil, nil
	}
	uid, gid, ok := strings.Cut(name, ":")
	if !ok {
		found, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("there is no user %q; write a name or UID:GID", name)
		}
		uid, gid = found.Uid, found.Gid
	}
	u, err := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	switch {
	case err != nil || err2 != nil:
		return nil, errors.New("write a name or UID:GID")
	case u == 0 || g == 0:
		return nil, errors.New("programs do not run as root")
	}
	return &sandbox.User{UID: uint32(u), GID: uint32(g)}, nil
}

// guarded refuses a folder whose contents somebody else than root and the server's user can change, by
// itself or by a folder above it.
func guarded(dir string) error {
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return fmt.Errorf("look at %s: %w", at, err)
		}
		switch sticky := info.Mode()&os.ModeSticky != 0 && at != dir; {
		case !info.IsDir():
			return fmt.Errorf("%s is no folder", at)
		case !ownedWell(info):
			return fmt.Errorf("%s belongs to another user than root and the server's", at)
		case writable(info) && !sticky: // in a sticky folder only the owner moves what is there
			return fmt.Errorf("%s can be written by others: chmod go-w %s", at, at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

func ownedWell(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Getuid())
}

func writable(info os.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }

// program finds a program by its name, which is no path, and answers what is wrong with it. It is
// looked at before every call: what was changed since is not run.
func (h Host) program(name string) (path, wrong string) {
	if h.Programs == "" {
		return "", "this server runs no programs: its operator names their folder with CUSTOM_PROGRAMS_DIR"
	}
	if !commandForm.MatchString(name) {
		return "", "command is no name of a program"
	}
	path = filepath.Join(h.Programs, name)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return "", fmt.Sprintf("there is no program %s in the operator's folder", name)
	case !info.Mode().IsRegular():
		return "", fmt.Sprintf("program %s is no regular file: links and folders are not followed", name)
	case !ownedWell(info):
		return "", fmt.Sprintf("program %s belongs to another user than root and the server's", name)
	case writable(info):
		return "", fmt.Sprintf("program %s can be written by others: chmod go-w it", name)
	case info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0:
		return "", fmt.Sprintf("program %s changes its user: take its setuid and setgid bits away", name)
	case info.Mode().Perm()&0o111 == 0:
		return "", fmt.Sprintf("program %s cannot be executed: chmod +x it", name)
	}
	if err := guarded(h.Programs); err != nil {
		return "", "the operator's folder of programs can be changed by others; the log of the start of the server tells where"
	}
	return path, ""
}
