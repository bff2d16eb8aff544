package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/fault"
)

const (
	maxPattern  = 512
	maxSegments = 64
)

// Glob is a compiled path pattern. It is immutable.
//
// A pattern is a path whose segments may be * (any one segment), ** (any number
// of segments, also none, but at least one at the beginning of a pattern) or
// hold ? (one character). It matches whole paths only.
type Glob struct {
	pattern  string
	segments []string
}

// CompileGlob reads a pattern. The error is an invalid_glob.
func CompileGlob(pattern string) (*Glob, error) {
	switch {
	case pattern == "":
		return nil, badGlob("it is empty")
	case len(pattern) > maxPattern:
		return nil, badGlob("it is longer than %d bytes", maxPattern)
	case !utf8.ValidString(pattern):
		return nil, badGlob("it is not UTF-8")
	case pattern[0] == '/':
		return nil, badGlob("it begins with a slash; paths do not")
	}
	g := &Glob{pattern: pattern}
	for i, segment := range strings.Split(pattern, "/") {
		switch {
		case segment == "":
			return nil, badGlob("a segment is empty")
		case segment == "**":
			if i == 0 {
				g.segments = append(g.segments, "*")
			}
			if g.segments[len(g.segments)-1] != "**" {
				g.segments = append(g.segments, "**")
			}
			continue
		case segment != "*" && strings.Contains(segment, "*"):
			return nil, badGlob("a * stands inside of a segment; use * or ** as a whole segment, or ? for one character")
		case strings.IndexFunc(segment, notInPattern) >= 0:
			return nil, badGlob(`spaces, control characters and \ [ ] { } cannot be used; the wildcards are *, ** and ?`)
		}
		g.segments = append(g.segments, segment)
	}
	if len(g.segments) > maxSegments {
		return nil, badGlob("it has more than %d segments", maxSegments)
	}
	return g, nil
}

func badGlob(format string, args ...any) error {
	return fault.New(fault.InvalidGlob, "read a path pattern: "+format, args...)
}

func notInPattern(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`\[]{}`, r)
}

// String is the pattern as it was written.
func (g *Glob) String() string { return g.pattern }

// Match tells whether the pattern matches the whole path. A path that is empty,
// begins or ends with a slash, or has an empty segment is matched by nothing.
// It does not allocate; its time is bounded by the product of both lengths.
func (g *Glob) Match(path string) bool {
	// The text is read from left to right. Where it does not fit, the last **
	// takes one segment more; earlier ones never need to be tried again, since
	// whatever they could take the last one can take as well.
	at, next := 0, 0
	retryAt, retryNext := -1, -1
	for at <= len(path) {
		segment, after := segmentAt(path, at)
		if segment == "" {
			return false
		}
		switch {
		case next < len(g.segments) && g.segments[next] == "**":
			next++
			retryAt, retryNext = at, next
			continue
		case next < len(g.segments) && matchSegment(g.segments[next], segment):
			at, next = after, next+1
			continue
		case retryNext < 0:
			return false
		}
		_, retryAt = segmentAt(path, retryAt)
		at, next = retryAt, retryNext
	}
	return next == len(g.segments) || next == len(g.segments)-1 && g.segments[next] == "**"
}

// segmentAt answers the segment that begins at a byte, and where the next one
// does: beyond the end of the path after the last.
func segmentAt(path string, at int) (segment string, after int) {
	if n := strings.IndexByte(path[at:], '/'); n >= 0 {
		return path[at : at+n], at + n + 1
	}
	return path[at:], len(path) + 1
}

// matchSegment compares one segment with one of a pattern that is not **.
func matchSegment(pattern, segment string) bool {
	if pattern == "*" || pattern == segment {
		return true
	}
	for _, want := range pattern {
		got, size := utf8.DecodeRuneInString(segment)
		if size == 0 || want != '?' && want != got {
			return false
		}
		segment = segment[size:]
	}
	return segment == ""
}

// Contains tells whether g matches every path that other matches. It may say no
// where the answer is yes, never the reverse.
func (g *Glob) Contains(other *Glob) bool {
	// As Match, with the segments of the other pattern for text: ** in it can
	// only be taken by **, and * only by * and **.
	at, next := 0, 0
	retryAt, retryNext := -1, -1
	for at < len(other.segments) {
		switch {
		case next < len(g.segments) && g.segments[next] == "**":
			next++
			retryAt, retryNext = at, next
			continue
		case next < len(g.segments) && containsSegment(g.segments[next], other.segments[at]):
			at, next = at+1, next+1
			continue
		case retryNext < 0:
			return false
		}
		retryAt++
		at, next = retryAt, retryNext
	}
	return next == len(g.segments) || next == len(g.segments)-1 && g.segments[next] == "**"
}

// containsSegment compares two patterns of one segment. A ? in the other stands
// for any character and so is only matched by ?, which matchSegment does.
func containsSegment(pattern, other string) bool {
	if other == "*" || other == "**" {
		return pattern == other
	}
	return matchSegment(pattern, other)
}
