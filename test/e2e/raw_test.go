package e2e_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// raw sends a request as the administrator, exactly as given, and follows
// nothing.
func (v *vault) raw(t *testing.T, method, path, body string, headers ...string) (status int, answer string) {
	t.Helper()
	response := v.send(t, method, path, body, headers...)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, string(text)
}

// send is raw with the whole response. Headers are "Name: value"; one without a
// value takes the default away.
func (v *vault) send(t *testing.T, method, path, body string, headers ...string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, v.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = path // as it is, not cleaned
	request.Header.Set("Authorization", "Bearer "+v.Token())
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ":")
		if value = strings.TrimSpace(value); value == "" {
			request.Header.Del(name)
			continue
		}
		request.Header.Set(name, value)
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := c.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response
}
