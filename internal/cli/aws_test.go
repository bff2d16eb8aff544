package cli

import (
	"path/filepath"
	"testing"
	"time"
)

// A file that two profiles name gives none of them the credential of the other.
func TestKeptCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials.json")
	admin := awsCredentials{1, "AKIAADMIN", "secret", "", time.Now().Add(time.Hour).UTC().Truncate(time.Second)}
	if err := keepCredentials(file, "https://vault  cloud/admin", admin); err != nil {
		t.Fatal(err)
	}
	if c, ok := keptCredentials(file, "https://vault  cloud/admin"); !ok || c != admin {
		t.Errorf("%v, %v", c, ok)
	}
	for _, other := range []string{"https://vault  cloud/reader", "https://other  cloud/admin"} {
		if _, ok := keptCredentials(file, other); ok {
			t.Errorf("%s is given the credential of cloud/admin", other)
		}
	}
}
