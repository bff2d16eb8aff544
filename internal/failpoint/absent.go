//go:build !failpoint

package failpoint

// Present tells whether this build has failpoints.
const Present = false

// Hit does nothing in this build.
func Hit(Point) {}
