package statement

import (
	"io"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
)

// The classes of characters that a password may hold. None of them means
// anything in a connection URL, a shell, a quoted string or a COPY line.
const (
	Upper   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	Lower   = "abcdefghijklmnopqrstuvwxyz"
	Digits  = "0123456789"
	Symbols = "-_"
)

// PasswordPolicy says what generated passwords look like.
type PasswordPolicy struct {
	Length  int      // 16 to 128
	Classes []string // of Upper, Lower, Digits and Symbols: at least one character of each
}

// DefaultPassword is 32 characters of all classes: 190 bits.
func DefaultPassword() PasswordPolicy {
	return PasswordPolicy{Length: 32, Classes: []string{Upper, Lower, Digits, Symbols}}
}

// Password draws a password of the default policy. A nil random stands for
// crypto/rand.
func Password(random io.Reader) Secret { return DefaultPassword().New(random) }

// Validate refuses a policy that New cannot serve, as an invalid_config.
func (p PasswordPolicy) Validate() error {
	if p.Length < 16 || p.Length > 128 {
		return fault.New(fault.InvalidConfig, "read a password policy: the length must be from 16 to 128, not %d", p.Length)
	}
	alphanumeric := false
	seen := map[string]bool{}
	for _, class := range p.Classes {
		switch class {
		case Upper, Lower, Digits:
			alphanumeric = true
		case Symbols:
		default:
			return fault.New(fault.InvalidConfig, "read a password policy: only letters, digits, - and _ can be used")
		}
		if seen[class] {
			return fault.New(fault.InvalidConfig, "read a password policy: a class is given twice")
		}
		seen[class] = true
	}
	if !alphanumeric {
		return fault.New(fault.InvalidConfig, "read a password policy: it needs letters or digits")
	}
	return nil
}

// New draws a password: every one that the policy allows is equally likely. It
// never begins with a symbol, so that no program takes it for an option. The
// policy must be valid.
func (p PasswordPolicy) New(random io.Reader) Secret {
	random = orDefault(random)
	alphabet := strings.Join(p.Classes, "")
	for {
		// Drawing the whole again, instead of mending it, keeps it unbiased.
		if password := draw(random, alphabet, p.Length); p.allows(password) {
			return Secret(password)
		}
	}
}

func (p PasswordPolicy) allows(password string) bool {
	if strings.ContainsRune(Symbols, rune(password[0])) {
		return false
	}
	for _, class := range p.Classes {
		if !strings.ContainsAny(password, class) {
			return false
		}
	}
	return true
}
