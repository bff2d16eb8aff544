// Package page cuts lists into pages: what was asked for, and the cursor that leads on.
//
// A cursor is the key of the last item shown, marked with the list it belongs to. It is no right:
// whoever changes one only begins elsewhere in the same list, which is judged as ever.
package page

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
)

// The limits of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Request asks for a page. Its zero value is the first one of the default size.
type Request struct {
	Limit  int
	Cursor string // as it came from the caller
}

// Size is how many items the page may hold.
func (r Request) Size() int {
	if r.Limit <= 0 {
		return DefaultLimit
	}
	return min(r.Limit, MaxLimit)
}

// After is the key behind which the page begins, "" for the first page. A cursor of another list,
// or one that was not made here, is an invalid_cursor.
func (r Request) After(list string) (string, error) {
	if r.Cursor == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(r.Cursor)
	key, ok := strings.CutPrefix(string(raw), list+":")
	if err != nil || !ok || key == "" || !utf8.ValidString(key) {
		return "", fault.New(fault.InvalidCursor, "read the cursor: it is not one that this list gave; begin again without it")
	}
	return key, nil
}

// Next is the end of a page whose last item has the key, when more follow.
func Next(list, key string) api.Page {
	cursor := base64.RawURLEncoding.EncodeToString([]byte(list + ":" + key))
	return api.Page{Cursor: &cursor, HasMore: true}
}

// Cut takes the page out of items, of which one more than its size was fetched, and says how it
// goes on. The key of an item is what After will answer.
func Cut[T any](r Request, list string, items []T, key func(T) string) ([]T, api.Page) {
	if len(items) <= r.Size() {
		return items, api.Page{}
	}
	items = items[:r.Size()]
	return items, Next(list, key(items[len(items)-1]))
}
