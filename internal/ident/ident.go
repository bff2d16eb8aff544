// Package ident makes and reads the ids of everything that is stored.
//
// An id is a prefix that says what it names, an underscore, and 26 characters
// of Crockford's base 32 in lower case: 48 bits of milliseconds since 1970, then
// 80 random bits. Ids sort by the time of their making, which keeps the writes
// of an index together, and cannot be guessed; but an id is no secret and gives
// no right.
package ident

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// Prefixes of the wire contract.
const (
	Engine         = "eng"
	Lease          = "lease"
	Policy         = "pol"
	Binding        = "bind"
	RotationPolicy = "rot"
	SecretPolicy   = "sp"
	Token          = "tok"
	ServiceAccount = "sa"
	Issuer         = "iss"
	Webhook        = "wh"
	Delivery       = "del"
	Event          = "evt"
	AuditEntry     = "log"
	Request        = "req"
	Tenant         = "tnt"
)

const (
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	length   = 26
)

// Generator makes ids. Its zero value draws from crypto/rand, and it is as
// safe for concurrent use as its source.
type Generator struct {
	// Random is the source of the random bits; nil for crypto/rand. New panics
	// where it fails.
	Random io.Reader
}

// New makes an id with the default generator.
func New(prefix string) string { return Generator{}.New(prefix) }

// New makes an id. Two ids of one millisecond are in no particular order.
func (g Generator) New(prefix string) string {
	source := g.Random
	if source == nil {
		source = rand.Reader
	}
	var raw [16]byte
	if _, err := io.ReadFull(source, raw[6:]); err != nil {
		panic(fmt.Sprintf("make an id: read random bits: %v", err))
	}
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint16(raw[:2], uint16(ms>>32))
	binary.BigEndian.PutUint32(raw[2:6], uint32(ms))

	var digits [length]byte
	high, low := binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])
	for i := length - 1; i >= 0; i-- {
		digits[i] = alphabet[low&31]
		high, low = high>>5, high<<59|low>>5
	}
	return prefix + "_" + string(digits[:])
}

// Valid tells whether s is an id of this prefix in the one form that New gives.
func Valid(prefix, s string) bool {
	digits, ok := strings.CutPrefix(s, prefix+"_")
	if !ok || len(digits) != length || digits[0] > '7' { // 130 bits of digits hold 128
		return false
	}
	for i := range length {
		if strings.IndexByte(alphabet, digits[i]) < 0 {
			return false
		}
	}
	return true
}

// Time answers when an id was made, to the millisecond; false for what is no id.
func Time(id string) (time.Time, bool) {
	at := strings.LastIndexByte(id, '_')
	if at < 0 || !Valid(id[:at], id) {
		return time.Time{}, false
	}
	var ms int64
	for _, c := range []byte(id[at+1 : at+11]) {
		ms = ms<<5 | int64(strings.IndexByte(alphabet, c))
	}
	return time.UnixMilli(ms).UTC(), true
}
