package duration_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want time.Duration
		out  string
	}{
		{"1s", time.Second, "1s"},
		{"90s", 90 * time.Second, "1m30s"},
		{"30m", 30 * time.Minute, "30m"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"60m", time.Hour, "1h"},
		{"24h", 24 * time.Hour, "24h"},
		{"1d", 24 * time.Hour, "24h"},
		{"36h", 36 * time.Hour, "36h"},
		{"48h", 48 * time.Hour, "2d"},
		{"7d", 7 * 24 * time.Hour, "7d"},
		{"2d12h", 60 * time.Hour, "60h"},
		{"1d1h1m1s", 25*time.Hour + time.Minute + time.Second, "25h1m1s"},
		{"0d5m", 5 * time.Minute, "5m"},
		{"007s", 7 * time.Second, "7s"},
		{"3650d", duration.Max, "3650d"},
		{"3649d23h59m60s", duration.Max, "3650d"},
	} {
		got, err := duration.Parse(tt.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.text, err)
			continue
		}
		if got.Std() != tt.want || got.String() != tt.out {
			t.Errorf("Parse(%q) = %v (%s), want %v (%s)", tt.text, got.Std(), got, tt.want, tt.out)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", " ", "0", "0s", "0d0h0m0s", "5", "s", "-1h", "+1h", "1.5h", "1,5h", "1e3s", "0x1s", "1_0s",
		"1h1h", "1m1h", "1s1d", "1h 30m", " 1h", "1h ", "1h\n", "1H", "1w", "1y", "1ms", "1us", "1h30", "h1",
		"3650d1s", "3651d", "87601h", "99999999999999999999s", "9223372036854775807s", "9223372036854775808s",
		"3650d87600h", "1\u00a0h", "\u0661h", "1h\x00", "null",
	} {
		if got, err := duration.Parse(text); !errors.Is(err, fault.InvalidDuration) {
			t.Errorf("Parse(%q) = %v, %v; want invalid_duration", text, got, err)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`"90s"`: `"1m30s"`, `3600`: `"1h"`, `"7d"`: `"7d"`, `315360000`: `"3650d"`, `"1\u0068"`: `"1h"`,
	} {
		var d duration.Duration
		if err := json.Unmarshal([]byte(in), &d); err != nil {
			t.Errorf("read %s: %v", in, err)
			continue
		}
		out, err := json.Marshal(d)
		if err != nil || string(out) != want {
			t.Errorf("%s is written as %s, %v; want %s", in, out, err, want)
		}
	}
	for _, in := range []string{`0`, `-1`, `-0`, `1.0`, `1.5`, `1e3`, `315360001`, `9223372036854775808`, `""`, `"0s"`, `true`, `{}`, `[]`, `"1.5h"`} {
		d := duration.Duration(time.Minute)
		if err := json.Unmarshal([]byte(in), &d); !errors.Is(err, fault.InvalidDuration) {
			t.Errorf("read %s: %v; want invalid_duration", in, err)
		}
		if d != duration.Duration(time.Minute) {
			t.Errorf("a refused %s changed the value", in)
		}
	}
	var optional struct{ TTL *duration.Duration }
	if err := json.Unmarshal([]byte(`{"TTL":null}`), &optional); err != nil || optional.TTL != nil {
		t.Errorf("null is not absence: %v, %v", optional.TTL, err)
	}
}

func TestStringOfWhatParseCannotGive(t *testing.T) {
	t.Parallel()
	for d, want := range map[duration.Duration]string{
		0: "0s", duration.Duration(time.Second - 1): "0s", duration.Duration(-time.Hour): "0s",
		duration.Duration(2500 * time.Millisecond): "2s",
	} {
		if got := d.String(); got != want {
			t.Errorf("String(%d) = %s, want %s", int64(d), got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"90s", "1h30m", "2d12h", "3650d", "1h1h", "-1h", "9223372036854775808s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := duration.Parse(text)
		if err != nil {
			if !errors.Is(err, fault.InvalidDuration) {
				t.Fatalf("Parse(%q): %v", text, err)
			}
			return
		}
		if d.Std() < time.Second || d.Std() > duration.Max || d.Std()%time.Second != 0 {
			t.Fatalf("Parse(%q) = %v is out of range", text, d.Std())
		}
		if back, err := duration.Parse(d.String()); err != nil || back != d {
			t.Fatalf("Parse(%q) = %v, and its String() %q reads back as %v, %v", text, d.Std(), d, back, err)
		}
		// The standard parser must agree on what both accept.
		if std, err := time.ParseDuration(text); err == nil && std != d.Std() {
			t.Fatalf("Parse(%q) = %v, the standard library says %v", text, d.Std(), std)
		}
	})
}
