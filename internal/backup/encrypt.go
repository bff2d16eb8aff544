package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// ParseRecipients reads age recipients, one a line; lines that begin with # are comments.
func ParseRecipients(text []byte) ([]age.Recipient, error) {
	found, err := age.ParseRecipients(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("read the recipients: a line is none that age knows; they look like age1… and are made by: age-keygen")
	}
	return found, nil
}

// ParseIdentities reads age identities, the private counterparts, one a line. Errors never repeat
// what they read.
func ParseIdentities(text []byte) ([]age.Identity, error) {
	found, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("read the identities: a line is none that age knows; they look like AGE-SECRET-KEY-1… and are made by: age-keygen -o FILE")
	}
	return found, nil
}

// Passphrase reads a passphrase, the first line of a text.
func Passphrase(text []byte) (age.Recipient, age.Identity, error) {
	phrase, _, _ := strings.Cut(string(text), "\n")
	phrase = strings.TrimSuffix(phrase, "\r")
	if len(phrase) < minPassphrase {
		return nil, nil, fmt.Errorf("read the passphrase: a backup is tried offline, so its passphrase has at least %d characters", minPassphrase)
	}
	to, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return nil, nil, errors.New("read the passphrase: it cannot be used")
	}
	by, err := age.NewScryptIdentity(phrase)
	if err != nil {
		return nil, nil, errors.New("read the passphrase: it cannot be used")
	}
	return to, by, nil
}

const minPassphrase = 12

// Encrypt encrypts what is written to it; Close, which comes before dst is closed, ends it.
func Encrypt(dst io.Writer, to ...age.Recipient) (io.WriteCloser, error) {
	if len(to) == 0 {
		return nil, errors.New("encrypt the backup: name a recipient or a passphrase; a backup is never written in the clear")
	}
	w, err := age.Encrypt(dst, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt the backup: %w", err)
	}
	return w, nil
}

// Decrypt opens an encrypted backup.
func Decrypt(src io.Reader, by ...age.Identity) (*Reader, error) {
	file := bufio.NewReader(src)
	const intro = "age-encryption.org/"
	if head, err := file.Peek(len(intro)); err != nil || string(head) != intro {
		return nil, errors.New("decrypt the backup: this is no backup of scaivault: it is not encrypted by age")
	}
	plain, err := age.Decrypt(file, by...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, errors.New("decrypt the backup: it is encrypted to somebody else: none of the identities opens it, or the passphrase is another one")
	case err != nil:
		return nil, unreadable(err)
	}
	return Open(plain)
}
