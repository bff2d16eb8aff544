package custom

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// schema is what this test looks at of a JSON schema.
type schema struct {
	Defs       map[string]*schema `json:"$defs"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	Enum       []string           `json:"enum"`
	Const      any                `json:"const"`
}

// The schema for authors has the fields and words that the code has, and no others.
func TestSchema(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/engines/custom-protocol.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]any{
		"request": request{}, functionCheck: checked{}, functionIssue: issued{}, functionRevoke: revoked{},
		functionRenew: renewed{}, functionLookup: lookedUp{}, functionList: listed{},
	} {
		compare(t, name, s.Defs[name], reflect.TypeOf(of))
	}
	compare(t, "error", s.Defs["failure"].Properties["error"], reflect.TypeFor[complaint]())
	if v := s.Defs["request"].Properties["protocol"].Const; v != float64(protocolVersion) {
		t.Errorf("the version is %v", v)
	}
	functions := append([]string{functionCheck, functionIssue, functionRevoke}, s.Defs["check"].Properties["functions"].Items.Enum...)
	if have := s.Defs["request"].Properties["function"].Enum; !slices.Equal(have, functions) {
		t.Errorf("functions %v", have)
	}
	for _, kind := range s.Defs["failure"].Properties["error"].Properties["kind"].Enum {
		if _, known := complaintKind(kind); !known {
			t.Errorf("kind %s is not known", kind)
		}
	}
}

// compare wants the properties of an object to be the fields of a struct.
func compare(t *testing.T, name string, s *schema, of reflect.Type) {
	t.Helper()
	if s == nil {
		t.Errorf("%s is not described", name)
		return
	}
	fields := map[string]reflect.Type{}
	for i := range of.NumField() {
		f := of.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" {
			tag = strings.ToLower(f.Name) // encode puts it there
		}
		fields[tag] = f.Type
		if s.Properties[tag] == nil {
			t.Errorf("%s.%s is not described", name, tag)
		}
	}
	for property, inner := range s.Properties {
		kind, there := fields[property]
		switch {
		case !there:
			t.Errorf("%s.%s is described and not there", name, property)
		case kind.Kind() == reflect.Struct && inner.Properties != nil:
			compare(t, name+"."+property, inner, kind)
		case kind.Kind() == reflect.Slice && inner.Items != nil && inner.Items.Properties != nil:
			compare(t, name+"."+property, inner.Items, kind.Elem())
		}
	}
}
