package ssh

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// The form of an OpenSSH key revocation list (PROTOCOL.krl of OpenSSH).
const (
	krlMagic         = 0x5353484b524c0a00 // "SSHKRL\n\0"
	krlFormat        = 1
	krlCertificates  = 1    // a section of certificates of one CA
	krlSerials       = 0x20 // in it, a list of serials
	krlComment       = "ScaiVault"
	krlSectionHeader = 1 + 4 // type and length
)

// RevocationList implements engine.RevocationLister: a key revocation list, which sshd reads as
// RevokedKeys. Its serials are revoked whatever CA has signed: they are random, so that those of former
// keys of the CA need not be kept apart, nor those of others whom a host trusts. Version and date are
// those of the last revocation, so that the same content is the same bytes on every node.
func (Type) RevocationList(at time.Time, revoked []engine.Recipe) ([]byte, error) {
	serials := make([]uint64, 0, len(revoked))
	for _, raw := range revoked {
		r, err := readRecipe(raw)
		if err != nil {
			return nil, err
		}
		serials = append(serials, r.Serial)
	}
	slices.Sort(serials)
	moment := uint64(0)
	if !at.IsZero() {
		moment = uint64(at.Unix())
	}
	b := binary.BigEndian.AppendUint64(nil, krlMagic)
	b = binary.BigEndian.AppendUint32(b, krlFormat)
	b = binary.BigEndian.AppendUint64(b, moment) // version
	b = binary.BigEndian.AppendUint64(b, moment) // date
	b = binary.BigEndian.AppendUint64(b, 0)      // flags
	b = appendString(b, nil)                     // reserved
	b = appendString(b, []byte(krlComment))
	if len(serials) == 0 {
		return b, nil
	}
	list := make([]byte, 0, 8*len(serials))
	for _, serial := range serials {
		list = binary.BigEndian.AppendUint64(list, serial)
	}
	section := appendString(nil, nil)     // any CA
	section = appendString(section, nil)  // reserved
	section = append(section, krlSerials) // of the subsection
	section = appendString(section, list) // its data
	b = slices.Grow(b, krlSectionHeader+len(section))
	return appendString(append(b, krlCertificates), section), nil
}

// appendString appends a text of the SSH wire form.
func appendString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
