package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/scaivault/scaivault/internal/fault"
)

// Place is where a record stands. It is bound to the ciphertext as associated data.
type Place struct {
	Tenant  string
	Table   string // "secret"
	Path    string
	Version int
}

// form is the first byte of a sealed record. After it come the number of the tenant's key (4 bytes,
// from 1), the wrapped data key, and the ciphertext.
const form = 1

const (
	headerSize  = 1 + 4
	wrappedSize = keySize + 12 + 16 // with its nonce and tag
)

// bound is the associated data: each part with its length, so that no two places are written alike.
func (p Place) bound() []byte {
	b := []byte{form}
	for _, part := range []string{p.Tenant, p.Table, p.Path, strconv.Itoa(p.Version)} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// Encrypt seals a record under a new data key, wrapped by its tenant's newest key.
func (k *Keyring) Encrypt(at Place, plaintext []byte) ([]byte, error) {
	keys := k.current.Load().aeads[at.Tenant]
	if len(keys) == 0 {
		return nil, failed("encrypt", errors.New("the tenant has no key"))
	}
	data := make([]byte, keySize)
	if _, err := io.ReadFull(k.random, data); err != nil {
		return nil, failed("encrypt", err)
	}
	aead, err := newAEAD(data)
	if err != nil {
		return nil, failed("encrypt", err)
	}
	bound := at.bound()
	sealed := make([]byte, headerSize, headerSize+wrappedSize+len(plaintext)+aead.Overhead())
	sealed[0] = form
	binary.BigEndian.PutUint32(sealed[1:], uint32(len(keys)))
	sealed = keys[len(keys)-1].Seal(sealed, nil, data, bound) //nolint:gosec // G407: the AEAD draws the nonce itself and wants none
	return aead.Seal(sealed, nil, plaintext, bound), nil      //nolint:gosec // G407: the AEAD draws the nonce itself and wants none
}

// Decrypt opens a record that was sealed for this very place.
func (k *Keyring) Decrypt(at Place, sealed []byte) ([]byte, error) {
	if len(sealed) < headerSize+wrappedSize || sealed[0] != form {
		return nil, failed("decrypt", errors.New("this is no sealed record"))
	}
	keys := k.current.Load().aeads[at.Tenant]
	number := binary.BigEndian.Uint32(sealed[1:headerSize])
	if number == 0 || uint64(number) > uint64(len(keys)) {
		return nil, failed("decrypt", fmt.Errorf("the tenant has no key %d", number))
	}
	bound := at.bound()
	data, err := keys[number-1].Open(nil, nil, sealed[headerSize:headerSize+wrappedSize], bound)
	if err != nil {
		return nil, failed("decrypt", errors.New("the record is damaged, or of another place"))
	}
	aead, err := newAEAD(data)
	if err != nil {
		return nil, failed("decrypt", err)
	}
	plaintext, err := aead.Open(nil, nil, sealed[headerSize+wrappedSize:], bound)
	if err != nil {
		return nil, failed("decrypt", errors.New("the record is damaged, or of another place"))
	}
	return plaintext, nil
}

func failed(what string, err error) error {
	return fault.New(fault.InternalError, "%s a stored record: it failed; the log of the server tells why", what).Because(err)
}
