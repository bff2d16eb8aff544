package ident_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/internal/ident"
)

func TestNew(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 10_000 {
		id := ident.New(ident.Lease)
		if !ident.Valid(ident.Lease, id) {
			t.Fatalf("%q is not valid", id)
		}
		if seen[id] {
			t.Fatalf("%q was made twice", id)
		}
		seen[id] = true
	}
}

func TestKnownForm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.UnixMilli(1469918176385))) // the example of the ULID specification
		zeros := ident.Generator{Random: bytes.NewReader(make([]byte, 10))}
		ones := ident.Generator{Random: bytes.NewReader(bytes.Repeat([]byte{0xff}, 10))}
		if got, want := zeros.New("eng"), "eng_01aryz6s410000000000000000"; got != want {
			t.Errorf("zeros: %s, want %s", got, want)
		}
		if got, want := ones.New("eng"), "eng_01aryz6s41zzzzzzzzzzzzzzzz"; got != want {
			t.Errorf("ones: %s, want %s", got, want)
		}
	})
}

func TestIDsSortByTimeAndTellIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		for range 1_000 {
			id := ident.New(ident.AuditEntry)
			at, ok := ident.Time(id)
			if !ok || !at.Equal(time.Now().Truncate(time.Millisecond)) {
				t.Fatalf("%s: time %v, %v; want %v", id, at, ok, time.Now())
			}
			ids = append(ids, id)
			time.Sleep(7 * time.Millisecond)
		}
		if !slices.IsSorted(ids) {
			t.Error("ids do not sort by time")
		}
	})
}

func TestValidRefuses(t *testing.T) {
	t.Parallel()
	good := ident.New("eng")
	for _, s := range []string{
		"", "eng", "eng_", good[:len(good)-1], good + "0", strings.ToUpper(good), "lease" + good[3:], "_" + good,
		"eng_8" + good[5:], "eng_" + strings.Repeat("i", 26), "eng_" + strings.Repeat("u", 26),
		"eng_01arz3ndektsv4rrffq69g5fa\x00", "eng_01arz3ndektsv4rrffq69g5f\u00e9",
	} {
		if ident.Valid("eng", s) {
			t.Errorf("%q is valid", s)
		}
		if _, ok := ident.Time(s); ok && !strings.HasPrefix(s, "lease") && !strings.HasPrefix(s, "_") {
			t.Errorf("%q has a time", s)
		}
	}
}

func TestNewPanicsWithoutRandomness(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("an id was made without random bits")
		}
	}()
	ident.Generator{Random: iotest.ErrReader(errors.New("none"))}.New("eng")
}

func FuzzValid(f *testing.F) {
	f.Add("eng_01arz3ndektsv4rrffq69g5fav")
	f.Add("eng_7zzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, s string) {
		at, ok := ident.Time(s)
		if ident.Valid("eng", s) && (!ok || at.UnixMilli() < 0 || at.UnixMilli() >= 1<<48) {
			t.Fatalf("%q is valid and its time is %v, %v", s, at, ok)
		}
	})
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ident.New(ident.Lease)
	}
}
