package server_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/scaivault/scaivault/internal/server"
)

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	doc, err := server.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := server.OpenAPI(); !bytes.Equal(doc, again) {
		t.Error("the document is another one the second time")
	}
	var parsed struct {
		OpenAPI string                               `yaml:"openapi"`
		Paths   map[string]map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(doc, &parsed); err != nil {
		t.Fatal(err)
	}
	seen := map[any]bool{}
	for path, item := range parsed.Paths {
		for method, op := range item {
			if op["summary"] == "" || op["responses"] == nil || seen[op["operationId"]] {
				t.Errorf("%s %s: incomplete, or its id is taken: %v", method, path, op["operationId"])
			}
			seen[op["operationId"]] = true
		}
	}
	if op := parsed.Paths["/dynamic/engines/{engine}/creds/{role}"]["post"]; op == nil || parsed.OpenAPI != "3.1.0" {
		t.Errorf("the contract lacks what it is for: %v", op)
	}
	stored, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil || !bytes.Equal(stored, doc) {
		t.Error("api/openapi.yaml is not what the code says: run `go run ./cmd/scaivault openapi > api/openapi.yaml`")
	}
}
