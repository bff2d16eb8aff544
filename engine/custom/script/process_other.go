//go:build !linux

package script

import "syscall"

const self = "scaivault"

func childAttributes() *syscall.SysProcAttr { return nil }
