package custom_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/internal/sandbox"
)

const wellBehaved = checks + `echo '{"data": {"token": "made"}}'`

// The API names a program, and never anything else of the host.
func TestPrograms(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"good": wellBehaved, "writable": wellBehaved, "plain": wellBehaved, "setuid": wellBehaved, "foreign": wellBehaved})
	in := func(name string) string { return filepath.Join(h.Programs, name) }
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, []byte("#!/bin/sh\n"+wellBehaved))
	for _, err := range []error{
		os.Chmod(in("writable"), 0o775), os.Chmod(in("plain"), 0o644), os.Chmod(in("setuid"), 0o755|os.ModeSetuid),
		os.Symlink(outside, in("link")), os.Symlink(in("good"), in("alias")), os.Mkdir(in("folder"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	bad := map[string]string{"writable": "written by others", "plain": "cannot be executed", "setuid": "changes its user",
		"link": "no regular file", "alias": "no regular file", "folder": "no regular file", "absent": "there is no program"}
	if os.Chown(in("foreign"), 64125, 64125) == nil { // root runs this
		bad["foreign"] = "another user"
	}
	for name, says := range bad {
		_, err := custom.Type{Host: h}.Open(t.Context(), options(t, name, nil))
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (custom.Type{}).Open(t.Context(), options(t, "good", nil)); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "CUSTOM_PROGRAMS_DIR") {
		t.Errorf("without a folder: %v", err)
	}

	e := open(t, h, options(t, "good", nil))
	p := plan(t, e, time.Minute)
	if err := os.Chmod(in("good"), 0o757); err != nil {
		t.Fatal(err)
	}
	_, err := e.Issue(t.Context(), p)
	var known *engine.Error
	if !errors.As(err, &known) || known.Kind != engine.Misconfigured || known.Code != "program_not_started" {
		t.Errorf("a program that others have made writable since: %v", err)
	}
	if err := errors.Join(os.Chmod(in("good"), 0o755), os.Chmod(h.Programs, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Issue(t.Context(), p); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("a folder that others have made writable since: %v", err)
	}
}

func TestNewHost(t *testing.T) {
	t.Parallel()
	box := sandbox.New(sandbox.Self())
	open := filepath.Join(t.TempDir(), "open")
	inside := filepath.Join(open, "inside")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777), os.Mkdir(inside, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dir, user, says string }{
		{open, programsUser(), "written by others"},
		{inside, programsUser(), "written by others"},
		{filepath.Join(open, "absent"), programsUser(), "CUSTOM_PROGRAMS_DIR"},
		{"/etc/passwd", programsUser(), "no folder"},
		{"/usr/bin", "nobody-of-this-name", "CUSTOM_PROGRAMS_USER"},
		{"/usr/bin", "12:x", "CUSTOM_PROGRAMS_USER"},
		{"/usr/bin", "0:12", "root"},
		{"/usr/bin", "12:0", "root"},
		{"/usr/bin", "root", "root"},
	} {
		if _, err := custom.NewHost(test.dir, test.user, box); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s as %s: %v", test.dir, test.user, err)
		}
	}
	_, err := custom.NewHost("/usr/bin", "", box)
	if os.Getuid() == 0 && err == nil {
		t.Error("programs would run as root")
	}
	if h, err := custom.NewHost("/usr/bin", "nobody", box); err != nil || h.User == nil {
		t.Errorf("%v", err)
	}
}
