package gcp_test

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// conditionOf is when the binding of an account ends.
func (s *source) conditionOf(t *testing.T, email string) time.Time {
	t.Helper()
	for _, b := range s.Bindings(project) {
		if !slices.Contains(b.Members, "serviceAccount:"+email) || b.Condition == nil {
			continue
		}
		text := strings.TrimSuffix(strings.TrimPrefix(b.Condition.Expression, `request.time < timestamp("`), `")`)
		end, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	t.Fatalf("%s has no binding that ends", email)
	return time.Time{}
}
