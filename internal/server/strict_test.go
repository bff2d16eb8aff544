package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/node"
)

// start runs a whole node on loopback.
func start(t testing.TB) *node.Node {
	t.Helper()
	c, err := config.Load(func(env string) (string, bool) {
		v, ok := map[string]string{"DATA_DIR": t.TempDir(), "BIND_ADDRESS": "127.0.0.1:0", "METRICS_ADDRESS": "off",
			"SCAIVAULT_RATE_LIMITS": "off"}[env]
		return v, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), c, node.Options{Logger: slog.New(slog.DiscardHandler), Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

type answered struct {
	status int
	header http.Header
	body   string
	code   string
}

func hangUp(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		t.Fatal(err)
	}
}

// raw sends bytes as they are over a connection of their own; cut, the caller ends it there.
func raw(t testing.TB, n *node.Node, request string, cut bool) answered {
	t.Helper()
	conn, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if cut {
		hangUp(t, conn)
	}
	method, _, _ := strings.Cut(request, " ")
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.60q: no answer: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answered{status: resp.StatusCode, header: resp.Header, body: string(body)}
	var envelope api.ErrorBody
	if json.Unmarshal(body, &envelope) == nil {
		a.code = envelope.Error.Code
		if a.code != "" && envelope.Error.RequestID != resp.Header.Get("X-Request-Id") {
			t.Errorf("%.60q: the envelope has another request id than the header", request)
		}
	}
	if !cut {
		hangUp(t, conn) // before the answer it would end the request
	}
	rest, err := io.ReadAll(reader)
	if len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%.60q: more than one answer: %.80q, %v", request, rest, err)
	}
	return a
}

// TestStrictInput sends what net/http would mend, redirect or pass on. Every line has one answer of
// the contract: no 500, no redirect, no second request.
func TestStrictInput(t *testing.T) {
	t.Parallel()
	n := start(t)
	auth := "Authorization: Bearer " + n.Token().Reveal() + "\r\n"
	head := func(line string) string { return line + " HTTP/1.1\r\nHost: vault\r\n" + auth }
	get := func(path string) string { return head("GET "+path) + "\r\n" }
	put := func(body, more string) string {
		return head("PUT /v1/secrets/app/strict") + "Content-Type: application/json\r\n" + more +
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	chunked := func(body string) string {
		return head("PUT /v1/secrets/app/strict") + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + body
	}
	const ok = `{"data": {"a": "b"}}`
	second := get("/v1/version")

	for name, tt := range map[string]struct {
		request string
		status  int
		code    string
	}{
		"double slash":            {get("/v1/dynamic/engines//creds/r"), 400, "invalid_path"},
		"dots":                    {get("/v1/dynamic/engines/../leases"), 400, "invalid_path"},
		"one dot":                 {get("/v1/./health"), 400, "invalid_path"},
		"trailing slash":          {get("/v1/dynamic/engines/"), 400, "invalid_path"},
		"escaped slash":           {get("/v1/dynamic/engines/pg%2f..%2fx"), 400, "invalid_path"},
		"escaped slash, capital":  {get("/v1/dynamic/engines/pg%2Fx"), 400, "invalid_path"},
		"escaped dots":            {get("/v1/secrets/a/%2e%2e/b"), 400, "invalid_path"},
		"escaped letter":          {get("/v1/%73ecrets/a"), 400, "invalid_path"},
		"nul":                     {get("/v1/secrets/a%00b"), 400, "invalid_path"},
		"line break":              {get("/v1/secrets/a%0d%0aX-Evil:1"), 400, "invalid_path"},
		"bad UTF-8":               {get("/v1/secrets/a%c0%af"), 400, "invalid_path"},
		"bad escape":              {get("/v1/secrets/a%zz"), 400, ""}, // net/http's own
		"small colon escape":      {get("/v1/secrets/a%3aversions"), 400, "invalid_path"},
		"colon escape":            {get("/v1/secrets/a%3Aversions"), 404, "secret_not_found"},
		"colon":                   {get("/v1/secrets/a:versions"), 404, "secret_not_found"},
		"unknown verb":            {get("/v1/secrets/a:explode"), 404, "not_found"},
		"verb, wrong method":      {head("DELETE /v1/secrets/a:versions") + "\r\n", 405, "method_not_allowed"},
		"backslash":               {get(`/v1/secrets/a\b`), 400, "invalid_path"},
		"fragment":                {get("/v1/secrets/a#b"), 400, "invalid_path"},
		"long path":               {get("/v1/secrets/" + strings.Repeat("a", 2000)), 400, "invalid_path"},
		"longer than headers may": {get("/v1/secrets/" + strings.Repeat("a", 64<<10)), 431, ""}, // net/http's own
		"semicolon in query":      {get("/v1/secrets?prefix=a;limit=1"), 400, "invalid_request"},
		"bad escape in query":     {get("/v1/secrets?prefix=%zz"), 400, "invalid_request"},
		"unknown parameter":       {get("/v1/secrets?prefx=a"), 400, "invalid_request"},
		"parameter twice":         {get("/v1/secrets?limit=1&limit=2"), 400, "invalid_request"},
		"limit 0":                 {get("/v1/secrets?limit=0"), 400, "invalid_request"},
		"limit 1001":              {get("/v1/secrets?limit=1001"), 400, "invalid_request"},
		"limit +1":                {get("/v1/secrets?limit=%2B1"), 400, "invalid_request"},
		"bad cursor":              {get("/v1/secrets?cursor=zzz"), 400, "invalid_cursor"},
		"long cursor":             {get("/v1/secrets?cursor=" + strings.Repeat("a", 2000)), 400, "invalid_request"},

		"absolute form":     {get("http://vault/v1/version"), 400, "invalid_path"},
		"asterisk":          {head("OPTIONS *") + "\r\n", 400, "invalid_path"},
		"CONNECT":           {head("CONNECT vault:80") + "\r\n", 400, "invalid_request"},
		"small method":      {head("get /v1/version") + "\r\n", 400, "invalid_request"},
		"TRACE":             {head("TRACE /v1/version") + "\r\n", 400, "invalid_request"},
		"HEAD":              {head("HEAD /v1/dynamic/leases") + "\r\n", 405, ""},
		"OPTIONS":           {head("OPTIONS /v1/version") + "\r\n", 405, "method_not_allowed"},
		"wrong method":      {head("POST /v1/version") + "\r\n", 405, "method_not_allowed"},
		"unknown path":      {get("/v1/nothing"), 404, "not_found"},
		"root":              {get("/"), 404, "not_found"},
		"unknown version":   {get("/v2/health"), 404, "not_found"},
		"unknown tenant":    {get("/v1/t/tnt_none/auth/whoami"), 404, "tenant_not_found"},
		"own tenant":        {get("/v1/t/tnt_default/auth/whoami"), 200, ""},
		"HTTP/1.9":          {"GET /v1/version HTTP/1.9\r\nHost: vault\r\n\r\n", 400, "invalid_request"},
		"HTTP/1.0":          {"GET /v1/version HTTP/1.0\r\nHost: vault\r\n\r\n", 400, "invalid_request"},
		"no host":           {"GET /v1/version HTTP/1.1\r\n\r\n", 400, ""}, // net/http's own
		"bare line feed":    {"GET /v1/version HTTP/1.1\nHost: vault\n\n", 400, "invalid_request"},
		"one bare line":     {"GET /v1/version HTTP/1.1\r\nHost: vault\r\nX-A: b\n\r\n", 400, "invalid_request"},
		"folded header":     {"GET /v1/version HTTP/1.1\r\nHost: vault\r\nX-A: b\r\n c\r\n\r\n", 400, "invalid_request"},
		"two tokens":        {head("GET /v1/auth/whoami") + "Authorization: Bearer x\r\n\r\n", 400, "invalid_request"},
		"two tenants":       {head("GET /v1/auth/whoami") + "X-Tenant-ID: tnt_default\r\nX-Tenant-ID: b\r\n\r\n", 400, "invalid_request"},
		"no token":          {"GET /v1/auth/whoami HTTP/1.1\r\nHost: vault\r\n\r\n", 401, "authentication_required"},
		"another scheme":    {"GET /v1/auth/whoami HTTP/1.1\r\nHost: vault\r\nAuthorization: Basic eDp5\r\n\r\n", 401, "authentication_required"},
		"no such token":     {"GET /v1/auth/whoami HTTP/1.1\r\nHost: vault\r\nAuthorization: Bearer skt_x\r\n\r\n", 401, "token_invalid"},
		"chunked":           {chunked("14\r\n" + ok + "\r\n0\r\n\r\n"), 200, ""},
		"chunked, then":     {chunked("14\r\n" + ok + "\r\n0\r\n\r\n" + second), 200, ""},
		"broken chunks":     {chunked("zz\r\n"), 400, "invalid_request"},
		"cut chunks":        {chunked("14\r\n" + ok), 400, "invalid_request"},
		"chunks and length": {put("0\r\n\r\n"+second, "Transfer-Encoding: chunked\r\n"), 400, "invalid_request"},
		"two lengths":       {put(ok, "Content-Length: 20\r\n"), 400, "invalid_request"},
		"cut body":          {head("PUT /v1/secrets/app/strict") + "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n" + ok, 400, "invalid_request"},

		"body":                {put(ok, ""), 200, ""},
		"empty body":          {head("PUT /v1/secrets/app/strict") + "Content-Length: 0\r\n\r\n", 400, "invalid_request"},
		"empty, all optional": {head("PATCH /v1/secrets/app/none") + "\r\n", 404, "secret_not_found"},
		"null":                {put(`null`, ""), 400, "invalid_request"},
		"an array":            {put(`[]`, ""), 400, "invalid_request"},
		"unknown field":       {put(`{"data": {"a": "b"}, "extra": 1}`, ""), 400, "invalid_request"},
		"another case":        {put(`{"Data": {"a": "b"}}`, ""), 400, "invalid_request"},
		"field twice":         {put(`{"data": {"a": "b"}, "data": {"a": "c"}}`, ""), 400, "invalid_request"},
		"field twice within":  {put(`{"data": {"a": "b", "a": "c"}}`, ""), 400, "invalid_request"},
		"trailing document":   {put(ok+`{}`, ""), 400, "invalid_request"},
		"trailing bytes":      {put(ok+`x`, ""), 400, "invalid_request"},
		"bad text":            {put("{\"data\": {\"a\": \"\xff\"}}", ""), 400, "invalid_request"},
		"lone surrogate":      {put(`{"data": {"a": "\ud800"}}`, ""), 400, "invalid_request"},
		"too deep":            {put(`{"data": {"a": `+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}}`, ""), 400, "invalid_request"},
		"too large":           {put(`{"data": {"a": "`+strings.Repeat("x", 1<<20)+`"}}`, ""), 400, "invalid_request"},
		"too many values":     {put(`{"data": {"a": [`+strings.Repeat("1,", 20000)+`1]}}`, ""), 400, "invalid_request"},
		"form body":           {strings.Replace(put("a=b", ""), "application/json", "application/x-www-form-urlencoded", 1), 415, "unsupported_media_type"},
		"other charset":       {strings.Replace(put(ok, ""), "application/json", "application/json; charset=latin1", 1), 415, "unsupported_media_type"},
		"UTF-8 charset":       {strings.Replace(put(ok, ""), "application/json", "application/json; charset=UTF-8", 1), 200, ""},
		"compressed":          {put(ok, "Content-Encoding: gzip\r\n"), 415, "unsupported_media_type"},
		"two types":           {put(ok, "Content-Type: application/json\r\n"), 415, "unsupported_media_type"},
		"body of a read":      {head("GET /v1/auth/whoami") + "Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"a\": 1}", 400, "invalid_request"},
		"twice 1h":            {put(`{"data": {"a": "b"}, "options": {"expires_in": "1h1h"}}`, ""), 400, "invalid_duration"},
		"signed":              {put(`{"data": {"a": "b"}, "options": {"expires_in": "+1h"}}`, ""), 400, "invalid_duration"},
		"negative":            {put(`{"data": {"a": "b"}, "options": {"expires_in": -1}}`, ""), 400, "invalid_duration"},
		"zero":                {put(`{"data": {"a": "b"}, "options": {"expires_in": 0}}`, ""), 400, "invalid_duration"},
		"fraction":            {put(`{"data": {"a": "b"}, "options": {"expires_in": 1.5}}`, ""), 400, "invalid_duration"},
		"long":                {put(`{"data": {"a": "b"}, "options": {"expires_in": "3651d"}}`, ""), 400, "invalid_duration"},
		"a day":               {put(`{"data": {"a": "b"}, "options": {"expires_in": "1d"}}`, ""), 200, ""},
		"kept path":           {strings.Replace(put(ok, ""), "app/strict", "dynamic/x", 1), 400, "invalid_path"},
		"capital path":        {strings.Replace(put(ok, ""), "app/strict", "App", 1), 400, "invalid_path"},
		"grant without type":  {"POST /v1/auth/token HTTP/1.1\r\nHost: vault\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b", 400, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := raw(t, n, tt.request, strings.HasPrefix(name, "cut"))
			if a.status != tt.status || tt.code != "" && a.code != tt.code {
				t.Errorf("answer %d %s, want %d %s: %s", a.status, a.code, tt.status, tt.code, a.body)
			}
			if a.header.Get("Location") != "" {
				t.Error("a redirect")
			}
			if a.status == 405 && a.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if a.code != "" && (a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff") {
				t.Errorf("headers: %v", a.header)
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	n := start(t)
	for given, kept := range map[string]bool{"abc-1.2_X": true, "": false, "a b": false, strings.Repeat("a", 65): false, `"><`: false} {
		a := raw(t, n, "GET /v1/version HTTP/1.1\r\nHost: vault\r\nX-Request-ID: "+given+"\r\n\r\n", false)
		got := a.header.Get("X-Request-Id")
		if (got == given) != kept || got == "" {
			t.Errorf("request id %q became %q", given, got)
		}
	}
}
