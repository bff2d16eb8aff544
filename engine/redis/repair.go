package redis

// mismatch is a user that a node has and should not, or lacks and should have.
type mismatch struct{ address, name string }

func (e *Engine) repairAlways() {}
