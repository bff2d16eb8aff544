//go:build !failpoint

package failpoint

import "context"

// Present tells whether this build has failpoints.
const Present = false

// Hit does nothing in this build.
func Hit(Point) {}

// OnSending does nothing in this build.
func OnSending(ctx context.Context, _ ...Point) context.Context { return ctx }

// Sent does nothing in this build.
func Sent(context.Context) {}
