package policy_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/policy"
)

// BenchmarkDecision is one decision by ten policies of five rules each, of which
// the last rule of the last policy allows.
func BenchmarkDecision(b *testing.B) {
	var policies []policy.Rules
	for p := range 10 {
		var rules []policy.Rule
		for r := range 5 {
			rules = append(rules, policy.Rule{PathPattern: fmt.Sprintf("dynamic/engine-%d/role-%d", p, r), Permissions: []policy.Permission{"dynamic:generate"},
				Conditions: &policy.Conditions{IPRanges: []string{"10.0.0.0/8"}}})
		}
		compiled, err := policy.Compile(rules)
		if err != nil {
			b.Fatal(err)
		}
		policies = append(policies, compiled)
	}
	ask := policy.Request{Path: "dynamic/engine-9/role-4", Permission: "dynamic:generate", SourceIP: netip.MustParseAddr("10.1.2.3"), Time: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		if !policy.Evaluate(policies, ask).Allowed {
			b.Fatal("denied")
		}
	}
}
