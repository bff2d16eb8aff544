package cli_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/cli"
)

// TestResumeNamesCAs: who resumes an older copy is told of which CAs revoked certificates may be good again.
func TestResumeNamesCAs(t *testing.T) {
	t.Parallel()
	url, set := answering(t)
	set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body := `{"active": false, "reason": "restored", "since": "2030-01-01T00:00:00Z", "resumed_at": "2030-01-01T01:00:00Z"}`
		if strings.HasSuffix(r.URL.Path, "/dynamic/engines") {
			body = `{"engines": [{"name": "hosts", "type": "ssh", "config": {}}, {"name": "more", "type": "ssh", "config": {"mode": "ca"}},
				{"name": "logins", "type": "ssh", "config": {"mode": "otp"}}, {"name": "db", "type": "database", "config": {}}]}`
		}
		_, _ = w.Write([]byte(body))
	})
	var out, said bytes.Buffer
	code := cli.Main(t.Context(), cli.Process{Args: []string{"resume", "--only-copy", "--json"}, In: strings.NewReader(""),
		Environ: []string{"SCAIVAULT_URL=" + url, "SCAIVAULT_TOKEN=skt_test"}, Out: &out, Err: &said})
	if text := said.String(); code != 0 || strings.Count(text, "rotate its CA") != 2 || !strings.Contains(text, "engine hosts:") || !strings.Contains(text, "engine more:") {
		t.Errorf("%d: %s", code, text)
	}
	if strings.Contains(out.String(), "hosts") {
		t.Errorf("what is for people is in the answer: %s", out.String())
	}
}
