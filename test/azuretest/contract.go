package azuretest

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// contracts are Microsoft's documents, read once per process.
var contracts = struct {
	once       sync.Once
	graph, arm *openapi3.T
	err        error
}{}

func loadContracts() error {
	contracts.once.Do(func() {
		if contracts.graph, contracts.err = load("graph.json"); contracts.err == nil {
			contracts.arm, contracts.err = load("authorization.json")
		}
	})
	return contracts.err
}

func load(name string) (*openapi3.T, error) {
	text, err := testdata(name)
	if err != nil {
		return nil, err
	}
	return openapi3.NewLoader().LoadFromData(text)
}

// checked is a request that was found at its place in a document.
type checked struct {
	input *openapi3filter.RequestValidationInput
}

// check validates a request against the operation of a document.
func check(r *http.Request, document *openapi3.T, path string, values map[string]string) (*checked, error) {
	item := document.Paths.Value(path)
	route := &routers.Route{Spec: document, Server: document.Servers[0], Path: path, PathItem: item, Method: r.Method, Operation: item.GetOperation(r.Method)}
	input := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: values, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	return &checked{input}, openapi3filter.ValidateRequest(r.Context(), input)
}

// response validates what is answered.
func (c *checked) response(status int, header http.Header, body string) error {
	return openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: c.input, Status: status, Header: header,
		Body: io.NopCloser(strings.NewReader(body)),
	})
}
