package ssh

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// backdating lets a certificate be good at once where a clock is behind.
const backdating = time.Minute

// request is a certificate that is to be signed, as the role allows it.
type request struct {
	key        ssh.PublicKey // nil for one that is made here
	kind       uint32
	principals []string // never empty: a certificate without is good for every account
	extensions map[string]string
	options    map[string]string
	keyID      string
	serial     uint64
	end        time.Time
}

// request is what the role makes of a wish; the caller names key id, serial and end.
func (r *role) request(w certificateWish) (*request, error) {
	q := &request{kind: ssh.UserCert, options: r.CriticalOptions}
	var err error
	switch {
	case w.PublicKey != "" && w.GenerateKey:
		return nil, refused("public_key and generate_key were both given: give one of them")
	case w.PublicKey != "":
		if q.key, err = parsePublicKey(w.PublicKey); err != nil {
			return nil, err
		}
	case !r.GenerateKey:
		return nil, refused("public_key is missing: send the line of a .pub file (the server makes keys for roles that say generate_key)")
	}
	if r.host() {
		q.kind = ssh.HostCert
		if w.Extensions != nil {
			return nil, refused("extensions are not for certificates of hosts")
		}
		q.principals, err = r.hosts(w.Username)
		return q, err
	}
	if q.extensions, err = r.extensions(w.Extensions); err != nil {
		return nil, err
	}
	q.principals, err = r.accounts(w.Username)
	return q, err
}

// accounts are those that are asked for, with commas between them; else the role's default, else all
// that it allows.
func (r *role) accounts(asked string) ([]string, error) {
	switch {
	case asked == "" && r.DefaultUser != "":
		return []string{r.DefaultUser}, nil
	case asked == "":
		return r.users(), nil
	}
	return principals(asked, r.allows)
}

// hosts are those that are asked for, with commas between them.
func (r *role) hosts(asked string) ([]string, error) {
	if asked == "" {
		return nil, refused("username is missing: name the host that the certificate is for")
	}
	return principals(asked, r.allowsHost)
}

func principals(asked string, allowed func(string) error) ([]string, error) {
	if len(asked) > maxEntries*64 {
		return nil, refused("username is too long")
	}
	all := strings.Split(asked, ",")
	for i, one := range all {
		if slices.Contains(all[:i], one) {
			return nil, refused("username names %.64q twice", one)
		}
		if err := allowed(one); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// allowsHost refuses a host name that is none of the role's: an entry is that name, or with "*." in front
// every name below it.
func (r *role) allowsHost(name string) error {
	if len(name) > 253 || !hostForm.MatchString(name) {
		return refused("username %.64q is no host name in small letters", name)
	}
	for _, domain := range r.AllowedDomains {
		below, every := strings.CutPrefix(domain, "*")
		if name == domain || every && strings.HasSuffix(name, below) {
			return nil
		}
	}
	return refused("username %.64q is in none of the role's domains", name)
}

// exampleOf is a host that an entry of allowed_domains allows.
func exampleOf(domain string) string { return strings.Replace(domain, "*.", "test.", 1) }

// extensions are the role's, or those that are asked for: of the role's own, with the value there, and
// of those that it allows.
func (r *role) extensions(asked *map[string]string) (map[string]string, error) {
	if asked == nil {
		return r.Extensions, nil
	}
	for name, value := range *asked {
		own, has := r.Extensions[name]
		switch {
		case has && own == value, !has && value == "" && slices.Contains(r.AllowedExtensions, name):
		default:
			return nil, refused("extensions: the role does not allow %.64q, or not with this value", name)
		}
	}
	return *asked, nil
}

// sign signs a certificate, reads it back from its wire form and checks that it is what was to be signed
// and nothing more.
func (e *Engine) sign(q *request) (*ssh.Certificate, error) {
	ca := e.signing(time.Now()).signer
	signed, err := certificate(q, ca)
	if err != nil {
		return nil, misconfigured("sign a certificate: the key of the CA does not sign", err)
	}
	back, err := ssh.ParsePublicKey(signed.Marshal())
	if err == nil {
		err = q.verify(back, ca.PublicKey())
	}
	if err != nil {
		return nil, misconfigured("check the certificate that was signed: it is not the one that was to be", err)
	}
	return signed, nil
}

func certificate(q *request, ca ssh.Signer) (*ssh.Certificate, error) {
	now := time.Now()
	c := &ssh.Certificate{
		Key: q.key, Serial: q.serial, CertType: q.kind, KeyId: q.keyID, ValidPrincipals: q.principals,
		ValidAfter: uint64(now.Add(-backdating).Unix()), ValidBefore: uint64(q.end.Unix()),
		Permissions: ssh.Permissions{CriticalOptions: q.options, Extensions: q.extensions},
	}
	if len(q.principals) == 0 || q.serial == 0 || !q.end.After(now) {
		return nil, errors.New("it has no principals, no serial, or ends before it is made")
	}
	return c, c.SignCert(rand.Reader, ca)
}

// verify compares a certificate with what was to be signed.
func (q *request) verify(back ssh.PublicKey, ca ssh.PublicKey) error {
	c, ok := back.(*ssh.Certificate)
	if !ok {
		return errors.New("it is no certificate")
	}
	for what, same := range map[string]bool{
		"key":              bytes.Equal(c.Key.Marshal(), q.key.Marshal()),
		"CA":               bytes.Equal(c.SignatureKey.Marshal(), ca.Marshal()),
		"signature":        c.Signature.Format != ssh.KeyAlgoRSA, // with SHA-1, which no sshd takes
		"kind":             c.CertType == q.kind,
		"serial":           c.Serial == q.serial,
		"key id":           c.KeyId == q.keyID,
		"principals":       slices.Equal(c.ValidPrincipals, q.principals),
		"end":              c.ValidBefore == uint64(q.end.Unix()),
		"critical options": maps.Equal(c.CriticalOptions, q.options),
		"extensions":       maps.Equal(c.Extensions, q.extensions),
	} {
		if !same {
			return fmt.Errorf("its %s is another", what)
		}
	}
	checker := ssh.CertChecker{SupportedCriticalOptions: slices.Collect(maps.Keys(q.options))}
	return checker.CheckCert(q.principals[0], c)
}
