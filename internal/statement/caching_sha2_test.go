package statement

import (
	"bytes"
	"strings"
	"testing"
)

// What crypt(3) of glibc answers, with 5,000 rounds and with others. Its salts have at most 16 characters, which is not the
// algorithm's limit but that of crypt(3).
func TestSHACrypt(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		password, salt string
		rounds         int
		want           string
	}{
		{"Hello world!", "saltstring", 5000, "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"},
		{"Hello world!", "saltstringsaltst", 10000, "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"},
		{"the minimum number is still observed", "roundstoolow", 1000, "yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC"},
		{"a", "x", 5000, "85aGabM7xSEYcp0wkefjwtqWAYi1Rrq3b01Gtllmmh7"},
		{"a very much longer text to encrypt, longer than a block of 64 bytes so that it wraps", "anotherlongsalts", 1400, "8qZgZjvqUnPX2zvfKK/MdEUcmZ5BfVr3lKIr7i4iHh0"},
	} {
		if got := shaCrypt([]byte(v.password), []byte(v.salt), v.rounds); got != v.want {
			t.Errorf("%s, %s, %d: %s, want %s", v.password, v.salt, v.rounds, got, v.want)
		}
	}
}

func TestCachingSHA2(t *testing.T) {
	t.Parallel()
	hash := CachingSHA2("pencil", bytes.NewReader(make([]byte, 100)))
	salt, digest, ok := strings.Cut(strings.TrimPrefix(hash, "$A$005$"), strings.Repeat("A", 20))
	if !ok || salt != "" || digest != shaCrypt([]byte("pencil"), []byte(strings.Repeat("A", 20)), 5000) || len(hash) != 70 {
		t.Errorf("got %s", hash)
	}
	if CachingSHA2("pencil", nil) == CachingSHA2("pencil", nil) {
		t.Error("two of one password are the same")
	}
}

// What MariaDB's PASSWORD('password') answers.
func TestNativePassword(t *testing.T) {
	t.Parallel()
	if got := NativePassword("password"); got != "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19" {
		t.Errorf("got %s", got)
	}
}

func BenchmarkCachingSHA2(b *testing.B) {
	for b.Loop() {
		CachingSHA2("pencil", nil)
	}
}
