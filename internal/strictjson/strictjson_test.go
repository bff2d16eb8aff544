package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/strictjson"
)

type common struct {
	Metadata map[string]string `json:"metadata,omitempty"`
}

type request struct {
	common
	Name    string             `json:"name"`
	Count   int8               `json:"count"`
	TTL     *duration.Duration `json:"ttl"`
	At      time.Time          `json:"at"`
	Raw     json.RawMessage    `json:"raw"`
	Any     any                `json:"any"`
	Nested  []nested           `json:"nested"`
	Keyed   map[string]*nested `json:"keyed"`
	Untold  bool
	Ignored string `json:"-"`
	private string //nolint:unused // decoding must pass over it
}

type nested struct {
	On bool `json:"on"`
}

func TestDecode(t *testing.T) {
	t.Parallel()
	const document = ` {"name":"\u00e9\ud83d\ude00\\\"", "count":-3,"ttl":"1h", "at":"2026-01-02T03:04:05Z",
		"raw":{"A":1,"a":[{}, []]}, "any":{"x":null,"X":[1.5e3,true,""]}, "nested":[ {"on":true} , null, {} ],
		"keyed":{"Name":{"on":false},"name":null}, "Untold":true, "metadata":{"k":"v"} } ` + "\n"
	var got, want request
	if err := strictjson.Decode([]byte(document), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(document), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, document, says string
	}{
		{"empty", ``, "empty"},
		{"blank", ` `, "byte 1"},
		{"null", `null`, "is null"},
		{"null with space", "\n null ", "is null"},
		{"broken", `{"name":"hunter2}`, "byte 17"},
		{"trailing", `{} {}`, "byte 4"},
		{"trailing text", `{}hunter2`, "byte 3"},
		{"byte order mark", "\ufeff{}", "byte 1"},
		{"comment", `{/*hunter2*/}`, "byte 2"},
		{"not UTF-8", "{\"name\":\"hunter2\xff\"}", "byte 16"},
		{"overlong NUL", "{\"name\":\"\xc0\x80\"}", "byte 9"},
		{"encoded surrogate", "{\"name\":\"\xed\xa0\x80\"}", "byte 9"},
		{"duplicate", `{"name":"hunter2","name":"hunter2"}`, `"name" is given twice`},
		{"duplicate, escaped", `{"name":"a","n\u0061me":"b"}`, `"name" is given twice`},
		{"duplicate below", `{"nested":[{},{"on":true,"on":true}]}`, `"nested.1.on" is given twice`},
		{"duplicate in any", `{"any":{"x":1,"x":1}}`, `"any.x" is given twice`},
		{"duplicate in raw", `{"raw":{"x":{"y":1,"y":2}}}`, `"raw.x.y" is given twice`},
		{"duplicate in a map", `{"metadata":{"x":"hunter2","x":"b"}}`, `"metadata.x" is given twice`},
		{"other case", `{"Name":"hunter2"}`, `"Name" is not known`},
		{"other case by Unicode", "{\"\u212aeyed\":{}}", "is not known"},
		{"unknown", `{"nmae":"hunter2"}`, `"nmae" is not known`},
		{"unknown below", `{"keyed":{"k":{"off":1}}}`, `"keyed.k.off" is not known`},
		{"ignored", `{"Ignored":"x"}`, "is not known"},
		{"private", `{"private":"x"}`, "is not known"},
		{"embedded struct by name", `{"common":{}}`, "is not known"},
		{"lone high surrogate", `{"name":"hunter2\ud800"}`, "byte 8"},
		{"lone low surrogate", `{"name":"\udc00"}`, "byte 8"},
		{"reversed pair", `{"name":"\udc00\ud800"}`, "byte 8"},
		{"two high surrogates", `{"name":"\ud800\ud800"}`, "byte 8"},
		{"high surrogate, another escape", `{"name":"\ud800\n"}`, "byte 8"},
		{"lone surrogate in a key", `{"any":{"\ud800":1}}`, "byte 8"},
		{"array", `[]`, "the document is an array; an object is wanted"},
		{"text", `"hunter2"`, "the document is a string; an object is wanted"},
		{"wrong type", `{"name":123456}`, `"name" is a number; a string is wanted`},
		{"wrong type below", `{"nested":[{"on":"hunter2"}]}`, `on" is a string; true or false is wanted`},
		{"wrong type in an embedded struct", `{"metadata":7}`, `field "metadata" is a number; an object is wanted`},
		{"wrong type further below", `{"keyed":{"k":{"on":1}}}`, `field "keyed.on" is a number`},
		{"too large", `{"count":12345}`, `"count" is a number; a whole number of 8 bits is wanted`},
		{"fraction", `{"count":1.5}`, `"count" is a number; a whole number`},
		{"object for text", `{"name":{"x":"hunter2"}}`, `"name" is an object; a string is wanted`},
		{"bad time", `{"at":"hunter2"}`, `"at" has the wrong form`},
		{"long name", `{"` + strings.Repeat("x", 5000) + `":1}`, "x…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var v request
			err := strictjson.Decode([]byte(tt.document), &v)
			if !errors.Is(err, fault.InvalidRequest) {
				t.Fatalf("got %v, want invalid_request", err)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			for _, value := range []string{"hunter2", "123456", "12345"} {
				if strings.Contains(err.Error(), value) {
					t.Errorf("the value is shown: %v", err)
				}
			}
			if len(err.Error()) > 400 {
				t.Errorf("the text is %d bytes long", len(err.Error()))
			}
		})
	}
}

// A field that reads its own form and answers a fault keeps its code.
func TestDecodeNamesTheFieldOfAFault(t *testing.T) {
	t.Parallel()
	var v request
	err := strictjson.Decode([]byte(`{"ttl":"-1h"}`), &v)
	if !errors.Is(err, fault.InvalidDuration) || !strings.Contains(err.Error(), `"ttl"`) {
		t.Errorf("got %v", err)
	}
}

func TestDecodeLimits(t *testing.T) {
	t.Parallel()
	deep := func(n int) []byte {
		return []byte(`{"any":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`)
	}
	wide := func(n int) []byte {
		return []byte(`{"any":[` + strings.Repeat("0,", n-3) + `0]}`)
	}
	for _, tt := range []struct {
		name     string
		document []byte
		ok       bool
	}{
		{"depth at the limit", deep(strictjson.MaxDepth), true},
		{"depth over it", deep(strictjson.MaxDepth + 1), false},
		{"depth far over it", deep(100_000), false},
		{"values at the limit", wide(strictjson.MaxValues), true},
		{"values over it", wide(strictjson.MaxValues + 1), false},
	} {
		var v request
		if err := strictjson.Decode(tt.document, &v); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// What Decode accepts, encoding/json accepts with the same result, strict
// settings included, and what is written again is accepted again.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"name":"\ud83d\ude00","count":1,"ttl":60,"nested":[{"on":true}],"keyed":{"a":null}}`,
		`{"any":{"a":[1,2,{"b":"c"}],"A":null},"raw":{"x":1},"metadata":{}}`,
		`{"name":"a","name":"b"}`, `{"Name":""}`, `null`, `[[]]`, `{"name":"\ud800"}`, `{}{}`, `{"at":"2026-01-01T00:00:00Z"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want request
		if err := strictjson.Decode(data, &got); err != nil {
			if code := fault.CodeOf(err); code != fault.InvalidRequest && code != fault.InvalidDuration {
				t.Fatalf("code %s", code)
			}
		} else {
			d := json.NewDecoder(bytes.NewReader(data))
			d.DisallowUnknownFields()
			if err := d.Decode(&want); err != nil {
				t.Fatalf("%q is accepted here, and not by encoding/json: %v", data, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%q is read as %+v, by encoding/json as %+v", data, got, want)
			}
		}
		var loose any
		if err := strictjson.Decode(data, &loose); err != nil {
			return
		}
		again, err := json.Marshal(loose)
		if err != nil {
			t.Fatal(err)
		}
		var back any
		if err := strictjson.Decode(again, &back); err != nil || !reflect.DeepEqual(loose, back) {
			t.Fatalf("%q is written as %q, which reads as %v, %v", data, again, back, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	document := []byte(`{"name":"readonly","ttl":"1h","metadata":{"team":"support","ticket":"4711"},"nested":[{"on":true},{"on":false}]}`)
	b.ReportAllocs()
	for b.Loop() {
		var v request
		if err := strictjson.Decode(document, &v); err != nil {
			b.Fatal(err)
		}
	}
}
