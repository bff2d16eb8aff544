package cli

import (
	"path/filepath"
	"testing"
	"time"
)

// A file that is named twice gives nobody the credential that another wanted, and nobody one that is
// about to end.
func TestKept(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials.json")
	const of = "https://vault  cloud/admin aws credential-process"
	admin := awsCredentials{1, "AKIAADMIN", "secret", "", time.Now().Add(time.Hour).UTC().Truncate(time.Second)}
	keep := func(ends time.Duration) {
		t.Helper()
		if err := writeKept(file, keptCredential[awsCredentials]{of, time.Now().Add(ends), admin}); err != nil {
			t.Fatal(err)
		}
	}
	keep(time.Hour)
	if c, ok := readKept[awsCredentials](file, of); !ok || c != admin {
		t.Errorf("%v, %v", c, ok)
	}
	for _, other := range []string{
		"https://vault  cloud/reader aws credential-process", "https://other  cloud/admin aws credential-process",
		"https://vault  cloud/admin gcp exec-credential",
	} {
		if _, ok := readKept[awsCredentials](file, other); ok {
			t.Errorf("%s is given the credential of cloud/admin", other)
		}
	}
	keep(keptSpare)
	if _, ok := readKept[awsCredentials](file, of); ok {
		t.Error("what is about to end is given")
	}
}
