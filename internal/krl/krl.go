// Package krl reads OpenSSH's key revocation lists, to tell a whole one from any other text.
//
// sshd takes a RevokedKeys file that is no list for a list of plain keys, and one without keys then
// revokes nothing; one that begins as a list and is damaged lets nobody in. So a host must not be
// given either. What is accepted here is what sshd accepts (PROTOCOL.krl, krl.c of OpenSSH 9.2), less
// signatures and extensions, which ScaiVault does not write.
package krl

import (
	"crypto/sha1" //nolint:gosec // its size alone
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/ssh"
)

// magic is "SSHKRL\n\0".
const (
	magic  = 0x5353484b524c0a00
	format = 1
)

// The kinds of sections, and of the parts of a section of certificates.
const (
	certificates       = 1
	explicitKeys       = 2
	sha1Fingerprints   = 3
	sha256Fingerprints = 5

	serialList   = 0x20
	serialRange  = 0x21
	serialBitmap = 0x22
	keyIDs       = 0x23
)

// bitmapBits is sshd's own limit.
const bitmapBits = 1 << 24

// Info is what a list says of itself.
type Info struct {
	Version   uint64
	Generated time.Time
	Comment   string
}

// Read reads a whole list. Its error says what is wrong with it.
func Read(data []byte) (Info, error) {
	r := &reader{rest: data}
	if r.uint64() != magic {
		return Info{}, errors.New("read the revocation list: it is not one")
	}
	if v := r.uint32(); r.err == nil && v != format {
		return Info{}, fmt.Errorf("read the revocation list: its format %d is not known", v)
	}
	info := Info{Version: r.uint64(), Generated: time.Unix(int64(r.uint64()), 0)}
	r.uint64() // flags
	r.bytes()  // reserved
	info.Comment = string(r.bytes())
	for r.err == nil && len(r.rest) > 0 {
		section := r.byte()
		r.check(readSection(section, r.bytes()))
	}
	if r.err != nil {
		return Info{}, fmt.Errorf("read the revocation list: %w", r.err)
	}
	return info, nil
}

func readSection(kind byte, data []byte) error {
	r := &reader{rest: data}
	switch kind {
	case certificates:
		return readCertificates(r)
	case explicitKeys:
		return r.each(keyError)
	case sha1Fingerprints:
		return r.each(ofSize(sha1.Size))
	case sha256Fingerprints:
		return r.each(ofSize(sha256.Size))
	}
	return fmt.Errorf("a section of kind %d is not known", kind)
}

// readCertificates reads what is revoked of one CA, or of all when no CA is named.
func readCertificates(r *reader) error {
	if ca := r.bytes(); len(ca) > 0 {
		r.check(keyError(ca))
	}
	r.bytes() // reserved
	for r.err == nil && len(r.rest) > 0 {
		kind := r.byte()
		part := &reader{rest: r.bytes()}
		switch kind {
		case serialList:
			for part.err == nil && len(part.rest) > 0 {
				part.check(serialError(part.uint64()))
			}
		case serialRange:
			low, high := part.uint64(), part.uint64()
			if part.check(serialError(low)); low > high {
				part.check(errors.New("a range of serial numbers ends before it begins"))
			}
			part.end()
		case serialBitmap:
			readBitmap(part)
		case keyIDs:
			part.check(part.each(func([]byte) error { return nil }))
		default:
			part.check(fmt.Errorf("a part of kind %#x is not known", kind))
		}
		r.check(part.err)
	}
	return r.err
}

// readBitmap reads serial numbers as an offset and a positive number whose bits are they.
func readBitmap(r *reader) {
	offset, bits := r.uint64(), r.bytes()
	r.end()
	switch n := new(big.Int).SetBytes(bits); {
	case r.err != nil:
	case len(bits) == 0 || bits[0]&0x80 != 0 || n.BitLen() == 0 || n.BitLen() > bitmapBits:
		r.check(errors.New("a bitmap of serial numbers is empty, negative or too large"))
	case offset == 0 && n.Bit(0) == 1, offset+uint64(n.BitLen()-1) < offset:
		r.check(serialError(0))
	}
}

// serialError refuses the number that certificates without one have.
func serialError(serial uint64) error {
	if serial == 0 {
		return errors.New("serial number 0 cannot be revoked")
	}
	return nil
}

func keyError(key []byte) error {
	if _, err := ssh.ParsePublicKey(key); err != nil {
		return errors.New("a key in it is none")
	}
	return nil
}

func ofSize(n int) func([]byte) error {
	return func(b []byte) error {
		if len(b) != n {
			return errors.New("a fingerprint in it has the wrong length")
		}
		return nil
	}
}

// reader reads the types of RFC 4251 section 5. After its first error it reads zeroes.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) check(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) take(n uint64) []byte {
	if r.err != nil || uint64(len(r.rest)) < n {
		r.check(errors.New("it ends too early"))
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes reads a string.
func (r *reader) bytes() []byte { return r.take(uint64(r.uint32())) }

// each reads strings to the end.
func (r *reader) each(check func([]byte) error) error {
	for r.err == nil && len(r.rest) > 0 {
		if one := r.bytes(); r.err == nil {
			r.check(check(one))
		}
	}
	return r.err
}

// end wants nothing more.
func (r *reader) end() {
	if len(r.rest) > 0 {
		r.check(errors.New("there is more behind its end"))
	}
}
