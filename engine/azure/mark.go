package azure

import (
	"slices"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

// markTag is how a tag begins that holds our signature over the name of an application.
const markTag = "scaivault:"

// tags are what an application of ours, and its service principal, bear.
func tags(namer *statement.Namer, name string) []string {
	return []string{markTag + signature(namer, name)}
}

func signature(namer *statement.Namer, name string) string {
	signed := namer.Mark("azure:" + name)
	return signed[strings.LastIndexByte(signed, '_')+1:]
}

// ours tells whether an application was made by this installation: by the checksum in its name and by
// the signature in its tags (law L11).
func (e *Engine) ours(a application) bool {
	return e.options.Namer.Ours(a.DisplayName) && slices.Contains(a.Tags, markTag+signature(e.options.Namer, a.DisplayName))
}

// passwordMark is how a password of ours on an application of somebody else is called: a password has
// no other place for a signature.
func passwordMark(namer *statement.Namer, name string) string {
	return name + " (ScaiVault " + signature(namer, name) + ")"
}

// nameOf is the name of a credential in the mark of its password; ok is false for a password that is
// not ours.
func (e *Engine) nameOf(p password) (name string, ok bool) {
	name, _, _ = strings.Cut(p.DisplayName, " (")
	return name, e.options.Namer.Ours(name) && p.DisplayName == passwordMark(e.options.Namer, name)
}

// passwordOf finds the password of a credential among those of an application that exists; foreign tells
// of one that only bears its name.
func (e *Engine) passwordOf(a application, name string) (found password, ok, foreign bool) {
	for _, p := range a.Passwords {
		switch p.DisplayName {
		case passwordMark(e.options.Namer, name):
			return p, true, false
		case name:
			foreign = true
		}
	}
	return password{}, false, foreign
}
