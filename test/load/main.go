// Command load measures what ScaiVault costs: the real server, with its store
// and a real PostgreSQL that both flush to disk, against a direct client of the
// same PostgreSQL that does the same work without a server in between. The other
// sources are measured in the same way, each against a client of its own.
//
// Both take turns within one run, so that a machine that grows slower meanwhile
// is slower for both, and what counts are the ratios. The direct client is
// direct.go: it is the limit, and keeps no record of anything.
//
//	go run ./test/load          about an hour
//	go run ./test/load -quick   about a quarter of an hour, and rougher
//
// The report goes to standard output as Markdown, progress to standard error.
// Nothing is left running and nothing is left behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/scaivault/scaivault/engine/postgresql"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	quick   bool
	majors  []int
	only    *regexp.Regexp
	rows    *regexp.Regexp
	command string // as it was called

	leases int // that scale's larger store holds; 0 for as many as the run has time for
	stores []string

	dir    string // of everything that the run makes
	binary string // the real one
	idle   string // the same with an engine whose source does nothing
	report report
	begun  time.Time
	load   string // of the machine, before anything was measured
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) > 0 && args[0] == "fill" {
		return fillStore(ctx, args[1:])
	}
	b, err := parse(args)
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "scaivault-load-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := b.build(ctx); err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	if err := b.report.begin(ctx, b); err != nil {
		return err
	}
	b.report.write(os.Stdout)
	b.say("done")
	return nil
}

// build makes the server as it is shipped.
func (b *bench) build(ctx context.Context) error {
	b.say("building the server")
	b.idle = filepath.Join(b.dir, "idle")
	programs := map[string]string{b.idle: "./test/load/idle"}
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "scaivault")
		programs[b.binary] = "./cmd/scaivault"
	}
	for file, source := range programs {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the server (run this in the project's own folder): %w: %s", err, out)
		}
	}
	return nil
}

func parse(args []string) (*bench, error) {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "fewer and shorter rounds, the first version only")
	majors := flags.String("pg", "15,17", "PostgreSQL versions, comma separated")
	only := flags.String("only", "", "sections to run, a regular expression of: issue revoke prefix grants age scale storm engines code")
	leases := flags.Int("leases", 0, "how many leases the larger store of scale holds (default 100,000; 10,000 with -quick)")
	stores := flags.String("stores", embedded+","+shared, "stores of the sections issue, prefix, scale and storm, comma separated")
	rows := flags.String("rows", "", "rows of the sections issue, revoke, prefix, scale and engines to run, a regular expression")
	binary := flags.String("binary", "", "server to measure, instead of building it")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	load, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	b := &bench{quick: *quick, binary: *binary, leases: *leases, stores: strings.Split(*stores, ","), begun: time.Now(), load: load, command: strings.Join(append([]string{"go run ./test/load"}, args...), " ")}
	var err error
	if b.only, err = regexp.Compile(*only); err != nil {
		return nil, err
	}
	if b.rows, err = regexp.Compile(*rows); err != nil {
		return nil, err
	}
	for text := range strings.SplitSeq(*majors, ",") {
		major, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("-pg %s: not a list of versions", *majors)
		}
		b.majors = append(b.majors, major)
	}
	if b.quick {
		b.majors = b.majors[:1]
	}
	return b, nil
}

// measure runs the sections. Each has servers of its own, so that one does not
// inherit the bloat of another.
func (b *bench) measure(ctx context.Context) error {
	type section struct {
		name string
		run  func(context.Context) error
	}
	var sections []section
	with := func(name string, major int, way, kind string, f func(context.Context, *rig) error) {
		sections = append(sections, section{name, func(ctx context.Context) error { return b.onRig(ctx, major, way, kind, f) }})
	}
	for _, major := range b.majors {
		for _, way := range ways(major) {
			if way == recommended(major) {
				for _, kind := range b.stores {
					with("issue", major, way, kind, b.issue)
					with("prefix", major, way, kind, b.prefix)
					with("storm", major, way, kind, b.storm)
				}
			}
			if way != postgresql.SetupMakers {
				with("revoke", major, way, embedded, b.revoke)
			}
			if major < 16 {
				with("grants", major, way, embedded, b.grants)
				with("age", major, way, embedded, b.twoRigs(b.cycles))
			} else {
				with("age", major, way, embedded, b.twoRigs(b.growth))
			}
		}
	}
	for _, kind := range b.stores {
		sections = append(sections, section{"scale", b.scale(kind)})
	}
	sections = append(sections, section{"engines", b.engines}, section{"code", b.code})
	for _, s := range sections {
		if !b.only.MatchString(s.name) {
			continue
		}
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// onRig runs a section that needs a source, a server and a direct client.
func (b *bench) onRig(ctx context.Context, major int, way, kind string, f func(context.Context, *rig) error) error {
	r, err := b.newRig(ctx, major, way, kind)
	if err != nil {
		return err
	}
	if err = f(ctx, r); err != nil {
		err = fmt.Errorf("%w; the server's log: %s", err, r.vault.tail())
	}
	if closed := r.close(); err == nil {
		err = closed
	}
	return err
}

// ways are the set-ups of root to measure. Before 16 a root with CREATEROLE
// costs the same however many accounts live; since then it does not, and the
// functions are what is recommended, or makers where no superuser is to be had.
func ways(major int) []string {
	if major < 16 {
		return []string{postgresql.SetupCreateRole}
	}
	return []string{postgresql.SetupDefiner, postgresql.SetupMakers, postgresql.SetupCreateRole}
}

func recommended(major int) string { return ways(major)[0] }

// rounds is how often each side is measured.
func (b *bench) rounds() int {
	if b.quick {
		return 3
	}
	return 5
}

// turn is how long one side is measured at a time.
func (b *bench) turn() time.Duration {
	if b.quick {
		return time.Second
	}
	return 2 * time.Second
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.0fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}
