package script

// Confine is what a child does first.
func Confine() error { return confine() }
