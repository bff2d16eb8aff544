package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time zones must work where the system has none

	"github.com/scaivault/scaivault/internal/fault"
)

// Conditions limit a rule; all that are given must hold. A list that is given
// and empty is refused: it could be read as "anything" and as "nothing".
type Conditions struct {
	// IPRanges are addresses or prefixes, one of which holds the caller.
	IPRanges []string `json:"ip_ranges,omitempty"`
	// RequireMFA asks for a second factor.
	RequireMFA bool `json:"require_mfa,omitempty"`
	// TimeWindows are times of the week, one of which holds the request.
	TimeWindows []TimeWindow `json:"time_windows,omitempty"`
}

// TimeWindow is a stretch of the day, by the clock on the wall of its time
// zone. An end before the start lies on the next day: the days are those on
// which it starts.
type TimeWindow struct {
	Days     []string `json:"days,omitempty"` // "mon" to "sun"; all when absent
	Start    string   `json:"start"`          // "HH:MM", included
	End      string   `json:"end"`            // "HH:MM" up to "24:00", excluded
	Timezone string   `json:"timezone,omitempty"`
}

type conditions struct {
	ranges  []netip.Prefix
	mfa     bool
	windows []window
}

type window struct {
	days       [7]bool // by time.Weekday
	start, end int     // minutes
	zone       *time.Location
}

func (c *Conditions) compile() (conditions, error) {
	out := conditions{mfa: c.RequireMFA}
	if c.IPRanges != nil && len(c.IPRanges) == 0 || c.TimeWindows != nil && len(c.TimeWindows) == 0 {
		return out, invalid("a list of conditions is empty; leave it out")
	}
	if len(c.IPRanges) > maxEntries || len(c.TimeWindows) > maxEntries {
		return out, invalid("a list of conditions has more than %d entries", maxEntries)
	}
	for _, text := range c.IPRanges {
		prefix, err := parseRange(text)
		if err != nil {
			return out, err
		}
		out.ranges = append(out.ranges, prefix)
	}
	for _, w := range c.TimeWindows {
		compiled, err := w.compile()
		if err != nil {
			return out, err
		}
		out.windows = append(out.windows, compiled)
	}
	return out, nil
}

func parseRange(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil || addr.Zone() != "" {
			return netip.Prefix{}, invalid("%.60q in ip_ranges is no address or prefix such as 10.0.0.0/8", text)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, invalid("%.60q in ip_ranges is an IPv4 range written as IPv6; write it as IPv4", text)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, invalid("%.60q in ip_ranges has bits beyond its length; %s is meant", text, prefix.Masked())
	}
	return prefix, nil
}

func (w TimeWindow) compile() (window, error) {
	var out window
	if w.Days != nil && len(w.Days) == 0 {
		return out, invalid("days of a time window is empty; leave it out")
	}
	if w.Days == nil {
		out.days = [7]bool{true, true, true, true, true, true, true}
	}
	names := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	for _, day := range w.Days {
		i := slices.Index(names, day)
		if i < 0 {
			return out, invalid("%.40q in a time window is no day; these are: %v", day, names)
		}
		out.days[i] = true
	}
	var ok bool
	if out.start, ok = minutes(w.Start); !ok || out.start == 24*60 {
		return out, invalid("start %.40q of a time window must be from 00:00 to 23:59", w.Start)
	}
	if out.end, ok = minutes(w.End); !ok {
		return out, invalid("end %.40q of a time window must be from 00:00 to 24:00", w.End)
	}
	if out.start == out.end {
		return out, invalid("start and end of a time window are the same; for the whole day write 00:00 and 24:00")
	}
	var err error
	if out.zone, err = time.LoadLocation(w.Timezone); err != nil || w.Timezone == "Local" {
		return out, invalid(`timezone %.60q of a time window is not known; write for example "Europe/Amsterdam"`, w.Timezone)
	}
	return out, nil
}

// minutes reads "HH:MM", "24:00" included.
func minutes(text string) (int, bool) {
	if len(text) != 5 || text[2] != ':' || strings.Trim(text[:2]+text[3:], "0123456789") != "" {
		return 0, false
	}
	hour, minute := int(text[0]-'0')*10+int(text[1]-'0'), int(text[3]-'0')*10+int(text[4]-'0')
	total := hour*60 + minute
	return total, minute < 60 && total <= 24*60
}

// failed answers the first condition that does not hold and its code; empty
// when all do.
func (c *conditions) failed(r Request) (condition string, code fault.Code) {
	if c.ranges != nil && !c.holds(r.SourceIP) {
		return "ip_ranges", fault.IPNotAllowed
	}
	if c.mfa && !r.MFAVerified {
		return "require_mfa", fault.MFARequired
	}
	if c.windows != nil && !c.open(r.Time) {
		return "time_windows", fault.TimeWindowViolation
	}
	return "", ""
}

func (c *conditions) holds(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, prefix := range c.ranges {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

func (c *conditions) open(now time.Time) bool {
	for i := range c.windows {
		if c.windows[i].contains(now) {
			return true
		}
	}
	return false
}

func (w *window) contains(now time.Time) bool {
	local := now.In(w.zone)
	minute := local.Hour()*60 + local.Minute()
	today := local.Weekday()
	if w.start < w.end {
		return w.days[today] && w.start <= minute && minute < w.end
	}
	yesterday := (today + 6) % 7
	return w.days[today] && w.start <= minute || w.days[yesterday] && minute < w.end
}

// implied tells whether c holds whenever other does.
func (c conditions) implied(other conditions) bool {
	if c.mfa && !other.mfa {
		return false
	}
	if c.ranges != nil {
		if other.ranges == nil {
			return false
		}
		for _, o := range other.ranges {
			within := func(p netip.Prefix) bool { return p.Bits() <= o.Bits() && p.Contains(o.Addr()) }
			if !slices.ContainsFunc(c.ranges, within) {
				return false
			}
		}
	}
	if c.windows != nil {
		if other.windows == nil {
			return false
		}
		for _, o := range other.windows {
			if !slices.ContainsFunc(c.windows, o.within) {
				return false
			}
		}
	}
	return true
}

// within tells whether w lies in other, both in the same time zone and on the
// same side of midnight.
func (w window) within(other window) bool {
	for day, on := range w.days {
		if on && !other.days[day] {
			return false
		}
	}
	return w.zone.String() == other.zone.String() && (w.start < w.end) == (other.start < other.end) &&
		other.start <= w.start && w.end <= other.end
}
