package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/scaivault/scaivault/engine"
)

// Each account is ended once, however many recipes are of it, and each recipe has the result of its account.
func TestRevokeEach(t *testing.T) {
	t.Parallel()
	unread, kept := errors.New("no recipe"), errors.New("it is still there")
	var ended [][]string
	results := engine.RevokeEach([]engine.Recipe{
		engine.Recipe("a"), engine.Recipe("b"), engine.Recipe("?"), engine.Recipe("a"), engine.Recipe("c"), engine.Recipe("b"),
	}, 2, func(r engine.Recipe) (string, error) {
		if string(r) == "?" {
			return "", unread
		}
		return string(r), nil
	}, func(accounts []string) map[string]engine.Result {
		ended = append(ended, slices.Clone(accounts))
		return map[string]engine.Result{"b": {Err: kept}, "c": {Outcome: engine.Outcome{Residue: "a view"}}}
	})
	if want := "[[a b] [c]]"; fmt.Sprint(ended) != want {
		t.Errorf("ended %v, want %s", ended, want)
	}
	for i, want := range []engine.Result{{}, {Err: kept}, {Err: unread}, {}, {Outcome: engine.Outcome{Residue: "a view"}}, {Err: kept}} {
		if results[i] != want {
			t.Errorf("result %d: %+v, want %+v", i, results[i], want)
		}
	}
}
