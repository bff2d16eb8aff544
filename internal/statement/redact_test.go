package statement_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/statement"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	const secret = "s3cr=t/\"pässword\"?>+"
	secrets := []string{secret, "admin", "first-line\nsecond-line", "5432", ""}
	for name, text := range map[string]string{
		"as it is":            secret,
		"JSON":                `{"pw": "s3cr=t/\"pässword\"?>+"}`,
		"JSON for HTML":       `{"pw": "s3cr=t/\"pässword\"?\u003e+"}`,
		"a query":             "GET /?pw=" + url.QueryEscape(secret),
		"a path":              "GET /" + url.PathEscape(secret) + "/x",
		"hex":                 hex.EncodeToString([]byte(secret)),
		"hex, upper case":     strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"base64":              base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64 for URLs":     base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"base64, one before":  base64.StdEncoding.EncodeToString([]byte(":" + secret)),
		"base64, two before":  base64.StdEncoding.EncodeToString([]byte("u:" + secret)),
		"base64, one behind":  base64.StdEncoding.EncodeToString([]byte(secret + "\n")),
		"base64, in a middle": base64.URLEncoding.EncodeToString([]byte("user:" + secret + " and so on")),
		"one of its lines":    "it begins first-line and",
		"the other line":      "it ends second-line and",
		"cut":                 "pw " + secret[:12],
		"base64, cut":         base64.StdEncoding.EncodeToString([]byte(secret))[:15],
	} {
		got := statement.Redact(text, secrets, 6)
		for _, piece := range []string{"s3cr", "word", "line", "czNj", "63723d74", "63723D74", "d29yZ"} {
			if strings.Contains(got, piece) {
				t.Errorf("%s: %q is left of %q in %q", name, piece, text, got)
			}
		}
		if !strings.Contains(got, "[redacted]") {
			t.Errorf("%s: %q", name, got)
		}
	}
	long := strings.Repeat("secret-", 1<<17) + "\n"
	for _, text := range []string{long[:1000], "a line\n" + long[:1000], strings.Repeat("a", 1000)} {
		got := statement.Redact(text, []string{long, strings.Repeat("a", 1<<20) + "b"}, 6)
		if strings.Contains(got, "secret-") || strings.Contains(got, "aaaaaa") {
			t.Errorf("the beginning of a long secret is left: %.100q", got)
		}
	}
	const plain = "connecting to admin@host:5432, which has s3cr in its name, and s3cr"
	if got := statement.Redact(plain, secrets, 6); got != plain {
		t.Errorf("what is no secret is taken out: %q", got)
	}
}
