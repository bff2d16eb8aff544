package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/scaivault/scaivault/test/servertest"
)

// installCommand is what a person runs when a version is missing.
const installCommand = "scripts/install-postgres.sh"

// systemCache is where the install script puts binaries when it runs as root
// in a checkout that the server's user cannot enter.
const systemCache = "/var/cache/scaivault/pg"

// installation is one PostgreSQL on this machine.
type installation struct {
	bin     string // folder of postgres and initdb
	version string // for instance "17.10"
}

// findInstallation looks for a major version: first where the environment
// says (SCAIVAULT_TEST_PG17_BIN), then where Debian puts it, then in the
// caches that the install script fills.
func findInstallation(major int, a account) (installation, error) {
	override := fmt.Sprintf("SCAIVAULT_TEST_PG%d_BIN", major)
	candidates := []string{
		fmt.Sprintf("/usr/lib/postgresql/%d/bin", major),
		filepath.Join(cacheDir(), "pg", fmt.Sprint(major), "bin"),
		filepath.Join(systemCache, fmt.Sprint(major), "bin"),
	}
	if dir := os.Getenv(override); dir != "" {
		candidates = []string{dir}
	}
	for _, bin := range candidates {
		if !a.reaches(filepath.Join(bin, "postgres")) {
			continue
		}
		version, err := versionOf(bin)
		if err != nil {
			return installation{}, err
		}
		if got, _, _ := strings.Cut(version, "."); got != fmt.Sprint(major) {
			return installation{}, fmt.Errorf("%s holds postgresql %s, not %d", bin, version, major)
		}
		return installation{bin: bin, version: version}, nil
	}
	return installation{}, fmt.Errorf("no postgresql %d in %s (%s is not set): run %s %d",
		major, strings.Join(candidates, ", "), override, installCommand, major)
}

// newestInstallation serves callers to whom the version does not matter.
func newestInstallation(a account) (installation, int, error) {
	var problems []error
	majors := Majors()
	for i := len(majors) - 1; i >= 0; i-- {
		found, err := findInstallation(majors[i], a)
		if err == nil {
			return found, majors[i], nil
		}
		problems = append(problems, err)
	}
	return installation{}, 0, errors.Join(problems...)
}

// versionOf asks the binary: "postgres (PostgreSQL) 15.18 (Debian 15.18-0)".
func versionOf(bin string) (string, error) {
	out, err := exec.Command(filepath.Join(bin, "postgres"), "--version").CombinedOutput() //nolint:noctx // prints a line and ends
	if err != nil {
		return "", fmt.Errorf("run %s/postgres --version: %w: %s", bin, err, out)
	}
	_, rest, _ := strings.Cut(string(out), "(PostgreSQL) ")
	version, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if version == "" {
		return "", fmt.Errorf("%s/postgres --version says %q", bin, out)
	}
	return version, nil
}

// cacheDir is the git-ignored .cache of the checkout the process runs in, or
// the user's own cache folder outside of a checkout.
func cacheDir() string {
	if dir, err := servertest.Checkout(); err == nil {
		return filepath.Join(dir, ".cache")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "scaivault")
	}
	return filepath.Join(os.TempDir(), "scaivault-cache")
}
