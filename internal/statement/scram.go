package statement

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
)

// ScramIterations is PostgreSQL's own default, and what RFC 7677 asks for at
// least.
const ScramIterations = 4096

// ScramSHA256 makes the verifier that PostgreSQL keeps in place of a password
// (RFC 5802, RFC 7677), so that the password itself never reaches the server
// or its log. The password must be printable ASCII, as generated ones are: no
// SASLprep is done. A nil random stands for crypto/rand.
func ScramSHA256(password Secret, iterations int, random io.Reader) string {
	salt := make([]byte, 16)
	if _, err := io.ReadFull(orDefault(random), salt); err != nil {
		panic(fmt.Sprintf("make a SCRAM verifier: read random bytes: %v", err))
	}
	salted, err := pbkdf2.Key(sha256.New, password.Reveal(), salt, iterations, sha256.Size)
	if err != nil {
		panic(fmt.Sprintf("make a SCRAM verifier: %v", err)) // only a forbidden hash or a length beyond 2^32 blocks
	}
	stored := sha256.Sum256(hmacSHA256(salted, "Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s",
		iterations, encode(salt), encode(stored[:]), encode(hmacSHA256(salted, "Server Key")))
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
