package ssh

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Limits of keys that are signed. 2,048 bits of RSA are what NIST SP 800-131A allows, and what keys of
// many smart cards and agents have; a certificate outlives no working day. sshd itself refuses to check
// signatures of more than 16,384 bits, and each bit costs every login.
const (
	minRSABits    = 2048
	maxRSABits    = 8192
	maxKeyText    = 4096 // of 8,192 bits of RSA: 1,420 characters, and a comment
	maxExponent   = 1<<31 - 1
	smallPrimes   = 3 * 5 * 7 * 11 * 13 * 17 * 19 * 23 * 29 * 31 * 37 * 41 * 43 * 47 // below 2^63
	keyTypesTaken = "ssh-ed25519, ecdsa-sha2-nistp256, -384 and -521, ssh-rsa, and both kinds of security keys (sk-)"
)

// parsePublicKey reads a caller's public key: one line as it stands in a .pub file. It is judged by its
// wire form, whatever the line says it is.
func parsePublicKey(text string) (ssh.PublicKey, error) {
	const attempt = "public_key"
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, refused("%s is missing: send the line of a .pub file", attempt)
	case len(text) > maxKeyText:
		return nil, refused("%s is longer than %d characters", attempt, maxKeyText)
	case strings.ContainsAny(text, "\r\n\x00"):
		return nil, refused("%s is more than one line: send the line of one .pub file, never a private key", attempt)
	}
	fields := strings.Fields(text)
	if len(fields) < 2 {
		return nil, refused("%s is not of the form TYPE BASE64 [COMMENT], as it stands in a .pub file", attempt)
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return nil, refused("%s is not of the form TYPE BASE64 [COMMENT], as it stands in a .pub file", attempt)
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, refused("%s is no key of a type that is taken: %s", attempt, keyTypesTaken)
	}
	if why := unacceptable(key); why != "" {
		return nil, refused("%s %s", attempt, why)
	}
	if key.Type() != fields[0] || !bytes.Equal(key.Marshal(), wire) {
		return nil, refused("%s says another type than its key is of, or its key is not in the one form that it has", attempt)
	}
	return key, nil
}

// unacceptable answers why a key is not signed; empty if it is.
func unacceptable(key ssh.PublicKey) string {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
	case ssh.KeyAlgoRSA:
	default:
		if _, nested := key.(*ssh.Certificate); nested {
			return "is a certificate: send the key that it was made for"
		}
		return "is of a type that is not taken, which are " + keyTypesTaken
	}
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return "is of a type that is not taken, which are " + keyTypesTaken
	}
	switch k := public.CryptoPublicKey().(type) {
	case *rsa.PublicKey:
		return weakRSA(k)
	case ed25519.PublicKey:
		if smallOrder(k) {
			return "is a point of small order, with which anybody can sign"
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return "is on a curve that is not taken"
		}
	}
	return ""
}

func weakRSA(k *rsa.PublicKey) string {
	switch bits := k.N.BitLen(); {
	case bits < minRSABits:
		return "is an RSA key of fewer than 2048 bits: make one with ssh-keygen -t ed25519"
	case bits > maxRSABits:
		return "is an RSA key of more than 8192 bits"
	case k.E < 3 || k.E%2 == 0 || k.E > maxExponent:
		return "is an RSA key with an exponent that is not odd and between 3 and 2^31"
	case k.N.Bit(0) == 0 || hasSmallPrime(k.N):
		return "is an RSA key whose modulus has a small factor"
	}
	return ""
}

func hasSmallPrime(n *big.Int) bool {
	return new(big.Int).GCD(nil, nil, n, big.NewInt(smallPrimes)).Cmp(big.NewInt(1)) != 0
}

// smallOrders are the encodings of the points of Ed25519 whose order divides 8, without the bit of the
// sign; three of the values are not reduced.
var smallOrders = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

func smallOrder(k ed25519.PublicKey) bool {
	unsigned := slices.Clone(k)
	unsigned[len(unsigned)-1] &= 0x7f
	return slices.Contains(smallOrders, hex.EncodeToString(unsigned))
}
