package policy_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/policy"
)

// rules compiles the rules of one policy from their JSON.
func rules(t testing.TB, text string) policy.Rules {
	t.Helper()
	var list []policy.Rule
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	compiled, err := policy.Compile(list)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return compiled
}

func at(text string) time.Time {
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return moment
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	bound := []policy.Rules{
		rules(t, `[{"path_pattern":"app/*","permissions":["read","list"]},
		           {"path_pattern":"guarded/**","permissions":["read"],"conditions":{"ip_ranges":["10.0.0.0/8","2001:db8::/32","192.0.2.7"],"require_mfa":true}}]`),
		rules(t, `[{"path_pattern":"team/**","permissions":["admin"]}]`),
	}
	office := netip.MustParseAddr("10.1.2.3")
	for _, tt := range []struct {
		name    string
		request policy.Request
		want    policy.Decision
	}{
		{"allowed", policy.Request{Path: "app/x", Permission: policy.Read}, policy.Decision{Allowed: true}},
		{"no such permission", policy.Request{Path: "app/x", Permission: policy.Write}, policy.Decision{Policy: -1, Rule: -1, Reason: fault.AccessDenied}},
		{"no such path", policy.Request{Path: "app/x/y", Permission: policy.Read}, policy.Decision{Policy: -1, Rule: -1, Reason: fault.AccessDenied}},
		{"admin includes write", policy.Request{Path: "team/x", Permission: policy.Write}, policy.Decision{Allowed: true, Policy: 1}},
		{"admin includes dynamic", policy.Request{Path: "team/x", Permission: policy.DynamicManage}, policy.Decision{Allowed: true, Policy: 1}},
		{"admin includes admin", policy.Request{Path: "team", Permission: policy.Admin}, policy.Decision{Allowed: true, Policy: 1}},
		{"admin includes nothing made up", policy.Request{Path: "team/x", Permission: "fly"}, policy.Decision{Policy: -1, Rule: -1, Reason: fault.AccessDenied}},
		{"no permission", policy.Request{Path: "team/x"}, policy.Decision{Policy: -1, Rule: -1, Reason: fault.AccessDenied}},
		{"conditions hold", policy.Request{Path: "guarded/x", Permission: policy.Read, SourceIP: office, MFAVerified: true}, policy.Decision{Allowed: true, Rule: 1}},
		{"single address", policy.Request{Path: "guarded/x", Permission: policy.Read, SourceIP: netip.MustParseAddr("192.0.2.7"), MFAVerified: true}, policy.Decision{Allowed: true, Rule: 1}},
		{"mapped address", policy.Request{Path: "guarded/x", Permission: policy.Read, SourceIP: netip.MustParseAddr("::ffff:10.1.2.3"), MFAVerified: true}, policy.Decision{Allowed: true, Rule: 1}},
		{"IPv6", policy.Request{Path: "guarded/x", Permission: policy.Read, SourceIP: netip.MustParseAddr("2001:db8::1"), MFAVerified: true}, policy.Decision{Allowed: true, Rule: 1}},
		{"another address", policy.Request{Path: "guarded/x", Permission: policy.Read, SourceIP: netip.MustParseAddr("11.1.2.3"), MFAVerified: true}, policy.Decision{Rule: 1, Reason: fault.IPNotAllowed, FailedCondition: "ip_ranges"}},
		{"no address", policy.Request{Path: "guarded/x", Permission: policy.Read, MFAVerified: true}, policy.Decision{Rule: 1, Reason: fault.IPNotAllowed, FailedCondition: "ip_ranges"}},
		{"no second factor", policy.Request{Path: "guarded/x", Permission: policy.Read, SourceIP: office}, policy.Decision{Rule: 1, Reason: fault.MFARequired, FailedCondition: "require_mfa"}},
	} {
		if got := policy.Evaluate(bound, tt.request); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if got := policy.Evaluate(nil, policy.Request{Path: "a", Permission: policy.Read}); got.Allowed {
		t.Error("without policies something is allowed")
	}
}

// A rule that fails by its condition does not hide a later one that allows.
func TestEvaluateLooksFurther(t *testing.T) {
	t.Parallel()
	bound := []policy.Rules{
		rules(t, `[{"path_pattern":"a","permissions":["read"],"conditions":{"require_mfa":true}}]`),
		rules(t, `[{"path_pattern":"**","permissions":["read"]}]`),
	}
	if got := policy.Evaluate(bound, policy.Request{Path: "a", Permission: policy.Read}); !got.Allowed || got.Policy != 1 {
		t.Errorf("%+v", got)
	}
}

func TestTimeWindows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		window string
		now    string
		want   bool
	}{
		// 2026-11-23 is a Monday.
		{`{"days":["mon"],"start":"08:00","end":"18:00","timezone":"Europe/Amsterdam"}`, "2026-11-23T07:00:00Z", true},
		{`{"days":["mon"],"start":"08:00","end":"18:00","timezone":"Europe/Amsterdam"}`, "2026-11-23T06:59:59Z", false},
		{`{"days":["mon"],"start":"08:00","end":"18:00","timezone":"Europe/Amsterdam"}`, "2026-11-23T16:59:59Z", true},
		{`{"days":["mon"],"start":"08:00","end":"18:00","timezone":"Europe/Amsterdam"}`, "2026-11-23T17:00:00Z", false},
		{`{"days":["mon"],"start":"08:00","end":"18:00","timezone":"Europe/Amsterdam"}`, "2026-11-24T10:00:00Z", false},
		// In summer the same wall clock is an hour earlier in UTC. 2026-07-06 is a Monday.
		{`{"days":["mon"],"start":"08:00","end":"18:00","timezone":"Europe/Amsterdam"}`, "2026-07-06T06:00:00Z", true},
		{`{"days":["mon"],"start":"08:00","end":"18:00","timezone":"Europe/Amsterdam"}`, "2026-07-06T16:00:00Z", false},
		// The day is that of the zone: Sunday evening UTC is Monday in Tokyo.
		{`{"days":["mon"],"start":"00:00","end":"24:00","timezone":"Asia/Tokyo"}`, "2026-11-22T15:00:00Z", true},
		{`{"days":["mon"],"start":"00:00","end":"24:00","timezone":"Asia/Tokyo"}`, "2026-11-23T15:00:00Z", false},
		// Over midnight: Friday night ends on Saturday morning. 2026-11-27 is a Friday.
		{`{"days":["fri"],"start":"22:00","end":"06:00"}`, "2026-11-27T22:00:00Z", true},
		{`{"days":["fri"],"start":"22:00","end":"06:00"}`, "2026-11-28T05:59:00Z", true},
		{`{"days":["fri"],"start":"22:00","end":"06:00"}`, "2026-11-28T06:00:00Z", false},
		{`{"days":["fri"],"start":"22:00","end":"06:00"}`, "2026-11-28T22:00:00Z", false},
		{`{"days":["fri"],"start":"22:00","end":"06:00"}`, "2026-11-27T05:00:00Z", false},
		{`{"days":["sat"],"start":"22:00","end":"06:00"}`, "2026-11-29T01:00:00Z", true}, // into Sunday, day 0
		{`{"start":"12:00","end":"13:00"}`, "2026-11-29T12:30:00Z", true},
		{`{"start":"12:00","end":"13:00"}`, "2026-11-29T13:00:00Z", false},
	} {
		bound := []policy.Rules{rules(t, `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[`+tt.window+`]}}]`)}
		got := policy.Evaluate(bound, policy.Request{Path: "a", Permission: policy.Read, Time: at(tt.now)})
		if got.Allowed != tt.want || !tt.want && got.Reason != fault.TimeWindowViolation {
			t.Errorf("%s at %s: %v", tt.window, tt.now, got)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	condition := func(c string) string {
		return `[{"path_pattern":"a","permissions":["read"],"conditions":` + c + `}]`
	}
	window := func(w string) string { return condition(`{"time_windows":[` + w + `]}`) }
	for text, code := range map[string]fault.Code{
		`[{"path_pattern":"/a","permissions":["read"]}]`:                     fault.InvalidGlob,
		`[{"permissions":["read"]}]`:                                         fault.InvalidGlob,
		`[{"path_pattern":"a"}]`:                                             fault.InvalidPolicy,
		`[{"path_pattern":"a","permissions":["fly"]}]`:                       fault.InvalidPolicy,
		`[{"path_pattern":"a","permissions":["Read"]}]`:                      fault.InvalidPolicy,
		`[{"path_pattern":"a","permissions":["*"]}]`:                         fault.InvalidPolicy,
		`[{"path_pattern":"a","permissions":["read","read"]}]`:               fault.InvalidPolicy,
		condition(`{"ip_ranges":[]}`):                                        fault.InvalidPolicy,
		condition(`{"ip_ranges":["x"]}`):                                     fault.InvalidPolicy,
		condition(`{"ip_ranges":["10.0.0.1/8"]}`):                            fault.InvalidPolicy,
		condition(`{"ip_ranges":["10.0.0.0/33"]}`):                           fault.InvalidPolicy,
		condition(`{"ip_ranges":["::ffff:10.0.0.0/104"]}`):                   fault.InvalidPolicy,
		condition(`{"ip_ranges":["fe80::1%eth0"]}`):                          fault.InvalidPolicy,
		condition(`{"time_windows":[]}`):                                     fault.InvalidPolicy,
		window(`{}`):                                                         fault.InvalidPolicy,
		window(`{"start":"8:00","end":"18:00"}`):                             fault.InvalidPolicy,
		window(`{"start":"08:60","end":"18:00"}`):                            fault.InvalidPolicy,
		window(`{"start":"24:00","end":"18:00"}`):                            fault.InvalidPolicy,
		window(`{"start":"08:00","end":"24:01"}`):                            fault.InvalidPolicy,
		window(`{"start":"08:00","end":"08:00"}`):                            fault.InvalidPolicy,
		window(`{"start":"+8:00","end":"09:00"}`):                            fault.InvalidPolicy,
		window(`{"days":[],"start":"08:00","end":"09:00"}`):                  fault.InvalidPolicy,
		window(`{"days":["monday"],"start":"08:00","end":"9:00"}`):           fault.InvalidPolicy,
		window(`{"start":"08:00","end":"09:00","timezone":"Local"}`):         fault.InvalidPolicy,
		window(`{"start":"08:00","end":"09:00","timezone":"Mars/Base"}`):     fault.InvalidPolicy,
		window(`{"start":"08:00","end":"09:00","timezone":"../etc/passwd"}`): fault.InvalidPolicy,
	} {
		var list []policy.Rule
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
		_, err := policy.Compile(list)
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != code || f.Details["rule"] != 0 {
			t.Errorf("%s: %v, want %s about rule 0", text, err, code)
		}
	}
}

func TestCovers(t *testing.T) {
	t.Parallel()
	const everything = `[{"path_pattern":"**","permissions":["admin"]}]`
	for _, tt := range []struct {
		name          string
		held, granted string
		want          bool
	}{
		{"admin of all", everything, `[{"path_pattern":"a/**","permissions":["read","dynamic:manage","admin"]}]`, true},
		{"nothing held", `[]`, `[{"path_pattern":"a","permissions":["read"]}]`, false},
		{"nothing granted", `[]`, `[]`, true},
		{"the same", `[{"path_pattern":"a/*","permissions":["read"]}]`, `[{"path_pattern":"a/*","permissions":["read"]}]`, true},
		{"a wider path", `[{"path_pattern":"a/*","permissions":["read"]}]`, `[{"path_pattern":"a/**","permissions":["read"]}]`, false},
		{"one permission too many", `[{"path_pattern":"a/*","permissions":["read"]}]`, `[{"path_pattern":"a/*","permissions":["read","write"]}]`, false},
		{"permissions from two rules", `[{"path_pattern":"a/*","permissions":["read"]},{"path_pattern":"**","permissions":["write"]}]`, `[{"path_pattern":"a/b","permissions":["read","write"]}]`, true},
		{"all but admin", `[{"path_pattern":"a","permissions":["read","write","delete","list","rotate","dynamic:generate","dynamic:read","dynamic:manage"]}]`, `[{"path_pattern":"a","permissions":["admin"]}]`, false},
		{"one rule of two", `[{"path_pattern":"a","permissions":["read"]}]`, `[{"path_pattern":"a","permissions":["read"]},{"path_pattern":"b","permissions":["read"]}]`, false},
		{"condition dropped", `[{"path_pattern":"a","permissions":["read"],"conditions":{"require_mfa":true}}]`, `[{"path_pattern":"a","permissions":["read"]}]`, false},
		{"condition added", `[{"path_pattern":"a","permissions":["read"]}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"require_mfa":true}}]`, true},
		{"condition kept", `[{"path_pattern":"a","permissions":["read"],"conditions":{"require_mfa":true}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"require_mfa":true,"ip_ranges":["10.0.0.0/8"]}}]`, true},
		{"range narrowed", `[{"path_pattern":"a","permissions":["read"],"conditions":{"ip_ranges":["10.0.0.0/8","192.0.2.0/24"]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"ip_ranges":["10.1.0.0/16","192.0.2.7"]}}]`, true},
		{"range widened", `[{"path_pattern":"a","permissions":["read"],"conditions":{"ip_ranges":["10.0.0.0/16"]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"ip_ranges":["10.0.0.0/8"]}}]`, false},
		{"range added", `[{"path_pattern":"a","permissions":["read"],"conditions":{"ip_ranges":["10.1.0.0/16"]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"ip_ranges":["10.1.0.0/16","11.0.0.0/8"]}}]`, false},
		{"range dropped", `[{"path_pattern":"a","permissions":["read"],"conditions":{"ip_ranges":["10.1.0.0/16"]}}]`, `[{"path_pattern":"a","permissions":["read"]}]`, false},
		{"window narrowed", `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"08:00","end":"18:00"}]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"days":["mon"],"start":"09:00","end":"18:00"}]}}]`, true},
		{"window widened", `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"08:00","end":"18:00"}]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"08:00","end":"18:01"}]}}]`, false},
		{"window over midnight", `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"08:00","end":"18:00"}]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"17:00","end":"09:00"}]}}]`, false},
		{"more days", `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"days":["mon"],"start":"08:00","end":"18:00"}]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"08:00","end":"18:00"}]}}]`, false},
		{"window of another zone", `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"08:00","end":"18:00"}]}}]`, `[{"path_pattern":"a","permissions":["read"],"conditions":{"time_windows":[{"start":"08:00","end":"18:00","timezone":"Asia/Tokyo"}]}}]`, false},
	} {
		if got := policy.Covers([]policy.Rules{rules(t, tt.held)}, rules(t, tt.granted)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if !policy.Covers([]policy.Rules{rules(t, `[]`), rules(t, everything)}, rules(t, everything)) {
		t.Error("the second policy is not looked at")
	}
}

func TestEvaluateDoesNotAllocate(t *testing.T) {
	bound, request := fiftyRules(t)
	if n := testing.AllocsPerRun(100, func() { policy.Evaluate(bound, request) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func fiftyRules(t testing.TB) ([]policy.Rules, policy.Request) {
	var list []policy.Rule
	for range 49 {
		list = append(list, policy.Rule{PathPattern: "infra/*/postgres/**/root", Permissions: []policy.Permission{policy.Read, policy.Admin}})
	}
	list = append(list, policy.Rule{PathPattern: "infra/**/password", Permissions: []policy.Permission{policy.Read}, Conditions: &policy.Conditions{
		IPRanges: []string{"10.0.0.0/8"}, RequireMFA: true, TimeWindows: []policy.TimeWindow{{Start: "00:00", End: "24:00", Timezone: "Europe/Amsterdam"}},
	}})
	compiled, err := policy.Compile(list)
	if err != nil {
		t.Fatal(err)
	}
	return []policy.Rules{compiled}, policy.Request{
		Path: "infra/prod/postgres/support/password", Permission: policy.Read, SourceIP: netip.MustParseAddr("10.1.2.3"), MFAVerified: true, Time: at("2026-11-23T07:00:00Z"),
	}
}

func BenchmarkEvaluateFiftyRules(b *testing.B) {
	bound, request := fiftyRules(b)
	b.ReportAllocs()
	for b.Loop() {
		if !policy.Evaluate(bound, request).Allowed {
			b.Fatal("denied")
		}
	}
}
