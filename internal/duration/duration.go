// Package duration reads and writes the durations of the wire contract.
//
// time.ParseDuration takes too much for a life time that decides when a
// credential dies ("1h1h", "+1h", "1.5h", "-1h", "0") and does not know days.
package duration

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
)

// Max is the longest duration accepted: ten years of 365 days.
const Max = 10 * 365 * day

const day = 24 * time.Hour

// Duration is at least one second, at most [Max], and whole seconds, once it
// was read by [Parse] or from JSON. Its zero value is an absent duration.
//
// In JSON it is read from a string such as "90s", "30m", "1h30m", "7d" or from
// an integer of seconds, and written as the string of [Duration.String].
type Duration time.Duration

// units, largest first: a text names each at most once and in this order.
var units = [...]struct {
	letter byte
	size   time.Duration
}{
	{'d', day}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second},
}

// Parse reads one or more numbers with their units d, h, m, s: each unit at
// most once, the larger before the smaller, whole numbers without a sign. The
// error is an invalid_duration.
func Parse(text string) (Duration, error) {
	if text == "" {
		return 0, invalid("it is empty")
	}
	var total time.Duration
	rest, next := text, 0
	for rest != "" {
		digits := 0
		for digits < len(rest) && '0' <= rest[digits] && rest[digits] <= '9' {
			digits++
		}
		if digits == 0 || digits == len(rest) {
			return 0, invalid("each whole number needs its unit d, h, m or s")
		}
		for next < len(units) && units[next].letter != rest[digits] {
			next++
		}
		if next == len(units) {
			return 0, invalid("the units are d, h, m and s, each at most once and in this order")
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || n > int64(Max/units[next].size) {
			return 0, tooLong()
		}
		total += time.Duration(n) * units[next].size // four times Max at most: no overflow
		rest, next = rest[digits+1:], next+1
	}
	return checked(total)
}

// Seconds reads a number of seconds, in the range of [Parse].
func Seconds(n int64) (Duration, error) {
	if n > int64(Max/time.Second) {
		return 0, tooLong()
	}
	if n < 0 {
		return 0, invalid("it is negative")
	}
	return checked(time.Duration(n) * time.Second)
}

// String is the normalised form, which Parse reads back to the same value:
// whole days from two on as days ("7d"), all else in hours, minutes and
// seconds without the parts that are zero ("24h", "1h30m", "90s" as "1m30s").
// What Parse cannot give is cut to whole seconds; below one it is "0s".
func (d Duration) String() string {
	rest := time.Duration(d)
	if rest >= 2*day && rest%day == 0 {
		return strconv.FormatInt(int64(rest/day), 10) + "d"
	}
	if rest < time.Second {
		return "0s"
	}
	var b strings.Builder
	for _, u := range units[1:] {
		if n := rest / u.size; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10))
			b.WriteByte(u.letter)
			rest -= n * u.size
		}
	}
	return b.String()
}

// Std answers the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalJSON writes the normalised string.
func (d Duration) MarshalJSON() ([]byte, error) { return []byte(`"` + d.String() + `"`), nil }

// UnmarshalJSON reads a string or an integer of seconds. JSON null leaves the
// value alone, as everywhere in encoding/json.
func (d *Duration) UnmarshalJSON(data []byte) error {
	text := string(data)
	if text == "null" {
		return nil
	}
	var parsed Duration
	var err error
	if strings.HasPrefix(text, `"`) {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return invalid("it is not a JSON string")
		}
		parsed, err = Parse(s)
	} else {
		parsed, err = parseSeconds(text)
	}
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

func parseSeconds(number string) (Duration, error) {
	digits := strings.TrimPrefix(number, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, invalid("a number must be whole seconds, without fraction or exponent")
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, tooLong()
	}
	return Seconds(n)
}

func checked(d time.Duration) (Duration, error) {
	if d == 0 {
		return 0, invalid("it is zero")
	}
	if d > Max {
		return 0, tooLong()
	}
	return Duration(d), nil
}

func tooLong() error { return invalid("it is longer than ten years (3650d)") }

func invalid(reason string) error {
	return fault.New(fault.InvalidDuration, `read a duration: %s; write for example "90s", "30m", "1h30m", "7d", or whole seconds as a number`, reason)
}
