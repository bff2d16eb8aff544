package script

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // for sources that ask for it
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // for sources that ask for it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strings"

	"github.com/scaivault/scaivault/internal/statement"
)

// digest hashes a text, or signs it with a key. The name is of an algorithm and an encoding.
func digest(kind, name string, texts []string) (string, error) {
	algorithm, encoding, _ := strings.Cut(name, " ")
	newHash, known := map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}[algorithm]
	if !known || len(texts) == 0 || kind == wishMAC && len(texts) != 2 {
		return "", errors.New("there is no such digest")
	}
	h := newHash()
	if kind == wishMAC {
		h = hmac.New(newHash, []byte(texts[1]))
	}
	h.Write([]byte(texts[0]))
	sum := h.Sum(nil)
	switch encoding {
	case "hex":
		return hex.EncodeToString(sum), nil
	case "base64":
		return base64.StdEncoding.EncodeToString(sum), nil
	case "raw":
		return string(sum), nil
	}
	return "", fmt.Errorf(`encoding %.20q is none of "hex", "base64" and "raw"`, encoding)
}

// convert gives a text another form.
func convert(kind, name string, texts []string) (string, error) {
	if len(texts) != 1 {
		return "", errors.New("one text is wanted")
	}
	text := texts[0]
	switch kind + " " + name {
	case wishJoin + " ":
		return text, nil
	case wishQuery + " ":
		return url.QueryEscape(text), nil
	case wishBase64 + " encode":
		return base64.StdEncoding.EncodeToString([]byte(text)), nil
	case wishBase64 + " encode-url":
		return base64.RawURLEncoding.EncodeToString([]byte(text)), nil
	case wishBase64 + " decode":
		return decoded(base64.StdEncoding, text)
	case wishBase64 + " decode-url":
		return decoded(base64.RawURLEncoding, text)
	}
	return "", errors.New("there is no such form")
}

func decoded(encoding *base64.Encoding, text string) (string, error) {
	b, err := encoding.DecodeString(text)
	if err != nil {
		return "", errors.New("the text is not base64")
	}
	return string(b), nil
}

// random draws a password, which is a secret, or bytes in hexadecimal, which are none: they are for
// names and nonces.
func (c *call) random(name string, size int) (reply, error) {
	if name == "hex" {
		if size < 1 || size > 64 {
			return reply{}, errors.New("random.hex gives 1 to 64 bytes")
		}
		b := make([]byte, size)
		_, _ = rand.Read(b) // never fails
		return reply{Text: []byte(hex.EncodeToString(b))}, nil
	}
	policy := statement.DefaultPassword()
	policy.Length = size
	if policy.Validate() != nil {
		return reply{}, errors.New("random.password gives 16 to 128 characters")
	}
	return c.vault.keep(policy.New(nil).Reveal())
}
