package server

import (
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
)

// param is a query parameter that an operation knows. It is read before the operation runs, so
// that a handler only ever sees values that are in range.
type param struct {
	name string
	doc  string
	kind kind
}

type kind int

const (
	kindText   kind = iota // string
	kindFlag               // bool
	kindNumber             // int, from 1
	kindMoment             // time.Time
	kindWait               // time.Duration, 0 to maxWait
)

const maxWait = 10 * time.Minute

func text(name, doc string) param   { return param{name, doc, kindText} }
func flag(name, doc string) param   { return param{name, doc, kindFlag} }
func number(name, doc string) param { return param{name, doc, kindNumber} }
func moment(name, doc string) param { return param{name, doc, kindMoment} }

// wait is how long an operation may wait for work to be done before it answers 202.
func wait() param {
	return param{"wait", "How long to wait for the work to be done before answering 202: 0 to 10m.", kindWait}
}

// force is for operations that end living leases when told to.
func force(doc string) param { return flag("force", doc) }

func pageParams() []param {
	return []param{
		number("limit", "Items per page: 1 to 1000, 100 when absent."),
		text("cursor", "The cursor of the page before."),
	}
}

// readQuery reads the parameters strictly: an unknown one, one given twice, and a value out of
// range are an invalid_request.
func readQuery(raw string, known []param) (map[string]any, error) {
	if raw == "" {
		return nil, nil
	}
	given, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, "read the query: it is not well escaped")
	}
	values := make(map[string]any, len(given))
	for name, texts := range given {
		p := find(known, name)
		if p == nil {
			return nil, fault.New(fault.InvalidRequest, "read the query: parameter %s is not known here", quote(name))
		}
		if len(texts) != 1 {
			return nil, fault.New(fault.InvalidRequest, "read the query: parameter %s is given %d times", p.name, len(texts))
		}
		if values[name], err = p.parse(texts[0]); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func find(known []param, name string) *param {
	for i := range known {
		if known[i].name == name {
			return &known[i]
		}
	}
	return nil
}

func (p *param) parse(s string) (any, error) {
	switch p.kind {
	case kindFlag:
		switch s {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, p.wrong("true or false")
	case kindNumber:
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 || s[0] == '0' {
			return nil, p.wrong("a whole number from 1")
		}
		if p.name == "limit" && n > page.MaxLimit {
			return nil, p.wrong("at most 1000")
		}
		return int(n), nil
	case kindMoment:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return nil, p.wrong("a time such as 2026-01-31T12:00:00Z")
		}
		return t.UTC(), nil
	case kindWait:
		return p.parseWait(s)
	default:
		if !printable(s) || len(s) > 1024 {
			return nil, p.wrong("printable text of at most 1024 bytes")
		}
		return s, nil
	}
}

// parseWait takes zero too, which durations of the contract are not.
func (p *param) parseWait(s string) (any, error) {
	if s == "0" || s == "0s" {
		return time.Duration(0), nil
	}
	d, err := duration.Parse(s)
	if err != nil {
		n, bad := strconv.ParseInt(s, 10, 64)
		if bad != nil {
			return nil, err
		}
		if d, err = duration.Seconds(n); err != nil {
			return nil, err
		}
	}
	if d.Std() > maxWait {
		return nil, fault.New(fault.InvalidDuration, "read the query: parameter wait is at most 10m")
	}
	return d.Std(), nil
}

func (p *param) wrong(wanted string) error {
	return fault.New(fault.InvalidRequest, "read the query: parameter %s must be %s", p.name, wanted)
}

// printable tells whether s can be logged and shown as it is.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// quote shows a caller's own word without letting it fill or forge the message.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strconv.QuoteToASCII(s)
}
