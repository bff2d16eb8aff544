package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// signed is what the Authorization header of a request says.
type signed struct {
	key, scope, headers, signature string
	at                             time.Time
}

func readSigned(r *http.Request) (signed, bool) {
	var s signed
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return s, false
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			s.key, s.scope, _ = strings.Cut(value, "/")
		case "SignedHeaders":
			s.headers = value
		case "Signature":
			s.signature = value
		}
	}
	var err error
	s.at, err = time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	return s, err == nil && s.key != ""
}

// sign computes the signature of a request with another body and secret, as AWS describes it.
func (s signed) sign(r *http.Request, length string, body []byte, secret string) string {
	var canonical strings.Builder
	canonical.WriteString(r.Method + "\n/\n\n")
	for name := range strings.SplitSeq(s.headers, ";") {
		value := r.Header.Get(name)
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = length
		}
		canonical.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	sum := sha256.Sum256(body)
	canonical.WriteString("\n" + s.headers + "\n" + hex.EncodeToString(sum[:]))
	sum = sha256.Sum256([]byte(canonical.String()))
	text := "AWS4-HMAC-SHA256\n" + s.at.Format("20060102T150405Z") + "\n" + s.scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + secret)
	for part := range strings.SplitSeq(s.scope, "/") {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, text))
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
