package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/server"
)

func TestDocs(t *testing.T) {
	t.Parallel()
	n := start(t)
	ask, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.URL()+"/v1/docs", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{}).Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %s: %v", answer.StatusCode, answer.Header.Get("Content-Type"), err)
	}
	for _, rt := range server.Routes() {
		if !strings.Contains(string(body), "<td>"+rt.Method+"<td><code>"+rt.Pattern+"</code>") {
			t.Errorf("%s %s is not in the page", rt.Method, rt.Pattern)
		}
	}
	if strings.Contains(string(body), "<script") || strings.Contains(string(body), "http://") {
		t.Error("the page runs or loads something")
	}
}
