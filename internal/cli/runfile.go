package cli

import (
	"encoding/base64"
	"fmt"
	"os"
)

// keyFile writes the key of a service account, which Google's programs take as a file only, where
// nobody else may read it, and gives its path as the field key_file. remove ends the file; nothing
// does where run is killed, but then the key ends by itself.
func (n connection) keyFile() (remove func(), err error) {
	encoded, given := n.fields["private_key_data"]
	if !given {
		return func() {}, nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("read the key of the service account: %w", err)
	}
	f, err := os.CreateTemp("", "scaivault-run-*.json") // made with 0600, and by us alone
	if err != nil {
		return nil, fmt.Errorf("write the key of the service account: %w", err)
	}
	remove = func() { _ = os.Remove(f.Name()) } // it may be gone
	_, err = f.Write(key)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		remove()
		return nil, fmt.Errorf("write the key of the service account: %w", err)
	}
	n.fields["key_file"] = f.Name()
	return remove, nil
}
