package ssh

import (
	"fmt"

	"github.com/scaivault/scaivault/engine"
)

// refused says no to a request; nothing is left anywhere.
func refused(format string, args ...any) *engine.Error {
	return &engine.Error{Kind: engine.Refused, Reason: fmt.Sprintf(format, args...)}
}

func misconfigured(reason string, err error) *engine.Error {
	return &engine.Error{Kind: engine.Misconfigured, Reason: reason, Err: err}
}
