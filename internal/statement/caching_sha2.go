package statement

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what the protocol of the plugin is made of
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
)

// NativePassword is what mysql_native_password keeps in place of a password, the
// one form that every MariaDB takes: SHA-1, applied twice. A password of 190
// random bits cannot be found from it.
func NativePassword(password Secret) string {
	once := sha1.Sum([]byte(password.Reveal())) //nolint:gosec // see above
	twice := sha1.Sum(once[:])                  //nolint:gosec // see above
	return "*" + strings.ToUpper(hex.EncodeToString(twice[:]))
}

const (
	cachingSHA2Salt   = 20
	cachingSHA2Rounds = 5000 // in the text as thousands, in hexadecimal; what MySQL 8 takes by default
)

// CachingSHA2 makes what caching_sha2_password of MySQL keeps in place of a
// password, so that the password itself never reaches the server or its logs:
// the SHA-crypt of Ulrich Drepper's specification, with SHA-256, a salt of 20
// characters and 5,000 rounds. A nil random stands for crypto/rand.
func CachingSHA2(password Secret, random io.Reader) string {
	salt := draw(orDefault(random), Upper+Lower+Digits, cachingSHA2Salt)
	return "$A$005$" + salt + shaCrypt([]byte(password.Reveal()), []byte(salt), cachingSHA2Rounds)
}

// shaCrypt is the digest of SHA-crypt, in the letters of crypt(3).
func shaCrypt(password, salt []byte, rounds int) string {
	repeat := func(block []byte, length int) []byte {
		return bytes.Repeat(block, length/len(block)+1)[:length]
	}
	sum := func(parts ...[]byte) []byte {
		h := sha256.Sum256(bytes.Join(parts, nil))
		return h[:]
	}
	b := sum(password, salt, password)
	start := [][]byte{password, salt, repeat(b, len(password))}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 == 1 {
			start = append(start, b)
		} else {
			start = append(start, password)
		}
	}
	digest := sum(start...)
	p := repeat(sum(bytes.Repeat(password, len(password))), len(password))
	s := repeat(sum(bytes.Repeat(salt, 16+int(digest[0]))), len(salt))

	text := make([]byte, 0, 2*len(p)+len(s)+len(digest))
	for i := range rounds {
		text = text[:0]
		odd := i%2 == 1
		if odd {
			text = append(text, p...)
		} else {
			text = append(text, digest...)
		}
		if i%3 != 0 {
			text = append(text, s...)
		}
		if i%7 != 0 {
			text = append(text, p...)
		}
		if odd {
			text = append(text, digest...)
		} else {
			text = append(text, p...)
		}
		h := sha256.Sum256(text)
		copy(digest, h[:])
	}
	return cryptText(digest)
}

// cryptText writes a digest as SHA-crypt does: groups of three bytes that are not
// in order, the lowest six bits first.
func cryptText(digest []byte) string {
	const letters = "./" + Digits + Upper + Lower
	var b strings.Builder
	write := func(value uint, characters int) {
		for range characters {
			b.WriteByte(letters[value&63])
			value >>= 6
		}
	}
	x, y, z := 0, 10, 20
	for range 10 {
		write(uint(digest[x])<<16|uint(digest[y])<<8|uint(digest[z]), 4)
		x, y, z = z+1, x+1, y+1
	}
	write(uint(digest[31])<<8|uint(digest[30]), 3)
	return b.String()
}
