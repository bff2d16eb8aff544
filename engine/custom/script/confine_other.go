//go:build !linux || !(amd64 || arm64)

package script

import "errors"

func confine() error { return errors.New("scripts run on Linux only, on amd64 and arm64") }
