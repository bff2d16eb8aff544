package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"hash/crc32"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// A bearer token is
//
//	skt_<26 characters: its id><43 characters: 256 random bits><6 characters: checksum>
//
// The prefix and the checksum let scanners of code and logs find a leaked one without a false
// alarm, and let the server turn away what was mistyped without looking it up. The random part is
// base 62: a double click selects the whole.
const (
	tokenPrefix   = "skt_"
	idDigits      = 26
	randomDigits  = 43 // 62^43 > 2^256
	checkDigits   = 6  // 62^6 > 2^32
	tokenLength   = len(tokenPrefix) + idDigits + randomDigits + checkDigits
	base62Letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Token is what is stored of a bearer token: its text only as a hash. The object's id is the
// token's, its key "<identity>/<id>", so that an identity's tokens lie together.
type Token struct {
	Name     string `json:"name"`
	Identity string `json:"identity"`
	// Subject is the id of the user or service account at the token's making. When that object is
	// gone the token is revoked, even if another one bears the name since.
	Subject   string     `json:"subject"`
	Hash      []byte     `json:"hash"` // SHA-256 of the text: 256 random bits need no slower one
	Scopes    []string   `json:"scopes"`
	ExpiresAt time.Time  `json:"expires_at"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	MadeBy    string     `json:"made_by,omitempty"`   // the token that asked for this one
	Bootstrap bool       `json:"bootstrap,omitempty"` // its text lies in a file until it is used
}

// TokenKey is the key under which a token of the identity is stored.
func TokenKey(identity, id string) string { return identity + "/" + id }

// NewTokenText makes the id and the text of a new token.
func NewTokenText() (id string, text statement.Secret) {
	id = ident.New(ident.Token)
	return id, NewSecret(tokenPrefix + id[len(ident.Token)+1:])
}

// NewSecret makes a secret of 256 random bits: the prefix, the random part and a checksum.
func NewSecret(prefix string) statement.Secret {
	b := make([]byte, 0, len(prefix)+randomDigits+checkDigits)
	b = append(b, prefix...)
	for drawn := make([]byte, randomDigits); len(b) < len(prefix)+randomDigits; {
		rand.Read(drawn) // never fails: it ends the process instead
		for _, c := range drawn {
			// The 8 values from 4*62 on would make some letters likelier.
			if c < 4*62 && len(b) < len(prefix)+randomDigits {
				b = append(b, base62Letters[c%62])
			}
		}
	}
	return statement.Secret(appendChecksum(b))
}

// Digest is what is stored of a secret's text.
func Digest(text string) []byte {
	h := sha256.Sum256([]byte(text))
	return h[:]
}

// Matches compares a secret's text with a stored digest, in a time that tells nothing of either.
func Matches(digest []byte, text string) bool {
	h := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(digest, h[:]) == 1
}

// TokenID finds the id in a token's text; false for what is no token.
func TokenID(text string) (string, bool) {
	if len(text) != tokenLength || !strings.HasPrefix(text, tokenPrefix) {
		return "", false
	}
	id := ident.Token + "_" + text[len(tokenPrefix):len(tokenPrefix)+idDigits]
	body := text[:tokenLength-checkDigits]
	for _, c := range []byte(body[len(tokenPrefix):]) {
		if strings.IndexByte(base62Letters, c) < 0 {
			return "", false
		}
	}
	var room [tokenLength]byte
	if string(appendChecksum(append(room[:0], body...))) != text || !ident.Valid(ident.Token, id) {
		return "", false
	}
	return id, true
}

// appendChecksum appends the CRC-32 of what is there, in base 62.
func appendChecksum(b []byte) []byte {
	sum := crc32.ChecksumIEEE(b)
	var digits [checkDigits]byte
	for i := checkDigits - 1; i >= 0; i-- {
		digits[i] = base62Letters[sum%62]
		sum /= 62
	}
	return append(b, digits[:]...)
}
