//go:build failpoint

package failpoint

import (
	"bufio"
	"context"
	"os"
	"strings"
	"syscall"
	"time"
)

// Present tells whether this build has failpoints.
const Present = true

// armedBy names the file that arms the points. It is read anew at each hit, so that a test arms and
// disarms a running server by replacing it. A line is "<point> kill" or "<point> sleep <duration>".
const armedBy = "SCAIVAULT_FAILPOINTS"

// Hit does what the file says for the point: it kills this process at once, as `kill -9` would,
// or sleeps. Without a line for it, nothing.
func Hit(p Point) {
	name := os.Getenv(armedBy)
	if name == "" {
		return
	}
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != string(p) {
			continue
		}
		switch fields[1] {
		case "kill":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way: nothing more is done
		case "sleep":
			if len(fields) > 2 {
				if d, err := time.ParseDuration(fields[2]); err == nil {
					time.Sleep(d)
				}
			}
		}
	}
}

// sending is the key of the points that a context carries.
type sending struct{}

// OnSending gives the operation under the context points to hit when its message to the source is
// out and its answer is not read: [Sent] hits them, from where that is known.
func OnSending(ctx context.Context, points ...Point) context.Context {
	return context.WithValue(ctx, sending{}, points)
}

// Sent hits the points that OnSending gave.
func Sent(ctx context.Context) {
	points, _ := ctx.Value(sending{}).([]Point)
	for _, p := range points {
		Hit(p)
	}
}
