package script_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/internal/dial"
	"github.com/scaivault/scaivault/internal/statement"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case script.ChildFlag:
			os.Exit(script.Child(os.Stdin, os.Stdout))
		case probeFlag:
			os.Exit(probe())
		case parentFlag:
			os.Exit(parent())
		}
	}
	os.Exit(m.Run())
}

const password = `correct "horse"/battery+staple\`

// runner runs issue of a script whose body is given.
func runner(t *testing.T, body string, handler http.HandlerFunc) (*script.Runner, *logged) {
	t.Helper()
	parsed, err := script.Parse("def revoke(ctx): pass\n" + body)
	if err != nil {
		t.Fatal(err)
	}
	if handler == nil {
		handler = func(http.ResponseWriter, *http.Request) {}
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	log := &logged{}
	r := &script.Runner{
		Script: parsed,
		Root:   map[string]statement.Secret{"username": "admin", "password": password},
		Client: engine.HTTPClient(engine.Options{Dial: new(net.Dialer).DialContext}, nil, 2),
		Hosts:  []script.Host{{Scheme: "http", Address: server.Listener.Addr().String()}},
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	t.Cleanup(r.Client.CloseIdleConnections)
	return r, log
}

type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// call calls issue with the server's address as ctx.url.
func call(t *testing.T, r *script.Runner) (json.RawMessage, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	input, err := json.Marshal(map[string]any{"url": "http://" + r.Hosts[0].Address, "name": "v_x_1", "parameters": map[string]any{"role": nil}})
	if err != nil {
		t.Fatal(err)
	}
	result, _, err := r.Call(ctx, script.Issue, input)
	return result, err
}

func TestCall(t *testing.T) {
	t.Parallel()
	type seen struct {
		user, password, body, header, path, kind string
	}
	var last seen
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, pass, _ := r.BasicAuth()
		last = seen{user, pass, string(body), r.Header.Get("X-Key"), r.URL.EscapedPath(), r.Header.Get("Content-Type")}
		w.Header().Set("X-Answer", "42")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"n": 7, "big": 12345678901234567890}`)
	}
	r, log := runner(t, `
def issue(ctx):
    p = random.password()
    print("issuing", ctx.name, root.password, "%s" % p, str(root))
    r = http.put(ctx.url + "/users/" + http.escape("a/b"), json={"password": p, "tags": ["x\"", 1], "again": "<" + root.password + ">"},
        headers={"X-Key": "Key " + root.password}, auth=(root.username, root.password))
    if r.status != 201 or r.headers["x-answer"] != "42" or r.json()["n"] != 7:
        fail("answer", r)
    mac = hmac.sha256(root.password, "message")
    return {"data": {"password": p, "both": p + ":" + root.username, "mac": mac, "plain": hash.sha256("abc"), "basic": base64.encode(root.username + ":x")},
        "ref": {"name": ctx.name, "big": r.json()["big"], "now": time.now() > time.parse_time("2020-01-01T00:00:00Z"), "hex": len(random.hex(8))}}
`, handler)
	result, err := call(t, r)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Data map[string]string
		Ref  map[string]any
	}
	decoder := json.NewDecoder(strings.NewReader(string(result)))
	decoder.UseNumber()
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	p := got.Data["password"]
	if len(p) != 32 || got.Data["both"] != p+":admin" || got.Data["basic"] != "YWRtaW46eA==" ||
		got.Data["plain"] != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" || len(got.Data["mac"]) != 64 {
		t.Errorf("data %v", got.Data)
	}
	if got.Ref["name"] != "v_x_1" || got.Ref["big"] != json.Number("12345678901234567890") || got.Ref["now"] != true || got.Ref["hex"] != json.Number("16") {
		t.Errorf("ref %v", got.Ref)
	}
	var sent struct{ Password, Again string }
	if err := json.Unmarshal([]byte(last.body), &sent); err != nil || sent.Password != p || sent.Again != "<"+password+">" {
		t.Errorf("body %s, %v", last.body, err)
	}
	if last.user != "admin" || last.password != password || last.header != "Key "+password || last.path != "/users/a%2Fb" || last.kind != "application/json" {
		t.Errorf("seen %+v", last)
	}
	if text := log.String(); !strings.Contains(text, "issuing v_x_1 **** ****") || strings.Contains(text, p) || strings.Contains(text, "horse") {
		t.Errorf("log %s", text)
	}
}

// A form is escaped after its secrets are known.
func TestForm(t *testing.T) {
	t.Parallel()
	var got string
	r, _ := runner(t, `
def issue(ctx):
    http.post(ctx.url, form={"grant": "x&y", "secret": root.password})
`, func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got = r.PostForm.Get("grant") + " " + r.PostForm.Get("secret")
	})
	if result, err := call(t, r); err != nil || string(result) != "{}" || got != "x&y "+password {
		t.Errorf("%s, %v, got %s", result, err, got)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body, code string
		line       int
		says       string
	}{
		"fail shows no secret":      {"def issue(ctx):\n    fail(root.password, 'x')\n", script.CodeScript, 3, "fail: **** x"},
		"formatted":                 {"def issue(ctx):\n    fail('%s {}'.format(root.password) % root.password)\n", script.CodeScript, 3, "**** ****"},
		"a secret is no string":     {"def issue(ctx):\n    return root.password[0]\n", script.CodeScript, 3, "secret"},
		"a secret has no length":    {"def issue(ctx):\n    return len(root.password)\n", script.CodeScript, 3, "secret"},
		"a secret is no key":        {"def issue(ctx):\n    return {root.password: 1}\n", script.CodeScript, 3, "key"},
		"a secret in ref":           {"def issue(ctx):\n    return {'ref': {'p': 'x' + root.password}}\n", script.CodeOutput, 0, `"ref"`},
		"a secret in the URL":       {"def issue(ctx):\n    http.get(ctx.url + '/' + root.password)\n", script.CodeScript, 3, "url"},
		"encoded in ref":            {"def issue(ctx):\n    return {'ref': json.encode([root.password])}\n", script.CodeOutput, 0, `"ref"`},
		"sent back, in ref":         {"def issue(ctx):\n    p = random.password()\n    return {'ref': {'p': [http.post(ctx.url, json=[p]).json()[0]]}}\n", script.CodeOutput, 0, `"ref"`},
		"compared":                  {"def issue(ctx):\n    if root.password < 'x': pass\n", script.CodeScript, 3, "not implemented"},
		"no such root field":        {"def issue(ctx):\n    root.token\n", script.CodeScript, 3, "token"},
		"no dict":                   {"def issue(ctx):\n    return 7\n", script.CodeOutput, 0, "int"},
		"no JSON":                   {"def issue(ctx):\n    return {'a': issue}\n", script.CodeOutput, 0, "function"},
		"huge output":               {"def issue(ctx):\n    return {'data': {'a': 'x' * 300000}}\n", script.CodeOutput, 0, "256 KiB"},
		"infinite loop":             {"def issue(ctx):\n    while True:\n        _x = 1\n", script.CodeSteps, 2, "steps"},
		"recursion":                 {"def _f(x):\n    return _f(x+1)\ndef issue(ctx):\n    _f(1)\n", script.CodeScript, 3, "recursively"},
		"top level loop":            {"x = [i for i in range(10000000000) if False]\ndef issue(ctx): pass\n", script.CodeSteps, 2, "steps"},
		"top level reaches out":     {"x = random.hex(4)\ndef issue(ctx): pass\n", script.CodeScript, 2, "top level"},
		"top level prints":          {"print(1)\ndef issue(ctx): fail('reached')\n", script.CodeScript, 3, "reached"},
		"memory at once":            {"def issue(ctx):\n    x = []\n    for i in range(100):\n        x.append('a' * (1000000000 + i))\n", script.CodeMemory, 0, ""},
		"memory by doubling":        {"def issue(ctx):\n    x = 'a'\n    for i in range(100):\n        x = x + x\n", script.CodeMemory, 0, ""},
		"memory by lists":           {"def issue(ctx):\n    x = []\n    for i in range(10000):\n        x.append([0] * 1000000)\n", script.CodeMemory, 0, ""},
		"flood":                     {"def issue(ctx):\n    for i in range(1000):\n        http.get(ctx.url)\n", script.CodeRequests, 4, "64"},
		"other host":                {"def issue(ctx):\n    http.get('http://example.com/')\n", script.CodeHost, 3, "http_hosts"},
		"other scheme":              {"def issue(ctx):\n    http.get(ctx.url.replace('http:', 'https:'))\n", script.CodeHost, 3, "http_hosts"},
		"user in the URL":           {"def issue(ctx):\n    http.get(ctx.url.replace('//', '//admin@'))\n", script.CodeHost, 3, "form"},
		"a file":                    {"def issue(ctx):\n    http.get('file:///etc/passwd')\n", script.CodeHost, 3, "form"},
		"two bodies":                {"def issue(ctx):\n    http.post(ctx.url, body='x', json={})\n", script.CodeScript, 3, "one body"},
		"another Host":              {"def issue(ctx):\n    http.get(ctx.url, headers={'hOst': 'x'})\n", script.CodeHTTP, 3, "Host"},
		"a header in two lines":     {"def issue(ctx):\n    http.get(ctx.url, headers={'X': 'a\\r\\nb: c'})\n", script.CodeHTTP, 3, "one line"},
		"big request":               {"def issue(ctx):\n    http.post(ctx.url, body='x' * 300000)\n", script.CodeHTTP, 3, "256 KiB"},
		"message beyond all limits": {"def issue(ctx):\n    http.post(ctx.url, body='x' * 5000000)\n", script.CodeChild, 0, "too long"},
		"flood of secrets":          {"def issue(ctx):\n    for i in range(1000):\n        random.password()\n", script.CodeScript, 4, "256 secrets"},
		"growing secret":            {"def issue(ctx):\n    p = root.password\n    for i in range(64):\n        p = p + p\n", script.CodeScript, 5, "1 MiB"},
		"another time zone's file":  {"def issue(ctx):\n    fail(time.is_valid_timezone('Europe/Amsterdam'))\n", script.CodeScript, 3, "False"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, log := runner(t, tt.body, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
			result, err := call(t, r)
			var f *script.Failure
			if !errors.As(err, &f) {
				t.Fatalf("%s, %v", result, err)
			}
			if f.Code != tt.code || f.Line != tt.line || !strings.Contains(f.Err.Error(), tt.says) {
				t.Errorf("%v", f)
			}
			if text := err.Error() + log.String(); strings.Contains(text, "horse") {
				t.Errorf("the root secret is shown: %s", text)
			}
		})
	}
}

// A script that names one long secret over and over makes its parent, which is the server, hold no more
// than the limit: neither in a text nor in what it gives.
func TestManySecrets(t *testing.T) {
	const long = `
def issue(ctx):
    s = root.password
    for i in range(9):
        s = s + s
`
	for name, body := range map[string]string{
		"in a text":   long + `    return {"data": {"all": json.encode([s] * 15000)}}`,
		"in a result": long + `    return {"data": {"f%d" % i: s for i in range(4000)}}`,
	} {
		r, _ := runner(t, body, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		result, _, err := r.Call(t.Context(), "issue", nil)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: a result of %d bytes", name, len(result))
		}
		if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 32 {
			t.Errorf("%s: took %d MiB: %v", name, took, err)
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	r, _ := runner(t, "def issue(ctx):\n    for i in range(1000):\n        time.sleep(time.hour)\n", nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := r.Call(ctx, script.Issue, nil)
	var f *script.Failure
	if !errors.As(err, &f) || f.Code != script.CodeTime {
		t.Errorf("%v", err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	const needed = "def issue(ctx): pass\ndef revoke(ctx): pass\n"
	s, err := script.Parse("def _helper(a, b): pass\ndef check(ctx): _helper(1, 2)\n" + needed)
	if err != nil || !slices.Equal(s.Functions(), []string{"check", "issue", "revoke"}) {
		t.Errorf("%v, %v", s, err)
	}
	for name, tt := range map[string]struct{ text, says string }{
		"syntax":            {needed + "def list(ctx:\n", "line 3, column"},
		"unknown name":      {needed + "x = os.environ\n", "line 3, column 5: undefined: os"},
		"no issue":          {"def revoke(ctx): pass", "no function issue"},
		"no revoke":         {"def issue(ctx): pass", "no function revoke"},
		"slip":              {needed + "def renw(ctx): pass", "line 3, column 1: renw"},
		"load":              {`load("x.star", "y")` + "\n" + needed, "load"},
		"arguments":         {needed + "def list(): pass", "one argument"},
		"recursion of text": {needed + "x = " + strings.Repeat("(", 60000), "nested"},
		"unary":             {needed + "x = " + strings.Repeat("-", 60000) + "1", "nested"},
		"not":               {needed + "x = " + strings.Repeat("not ", 15000) + "1", "nested"},
		"lambda":            {needed + "x = " + strings.Repeat("lambda:", 9000) + "1", "nested"},
		"else":              {needed + "x = " + strings.Repeat("1 if 1 else ", 5000) + "1", "nested"},
		"sum":               {needed + "x = " + strings.Repeat("1+", 30000) + "1", "nested"},
		"too long":          {needed + strings.Repeat("#", 65000) + strings.Repeat("#", 600), "64 KiB"},
		"broken UTF-8":      {needed + "x = '\xff'\ny = \xfe", "line"},
	} {
		if _, err := script.Parse(tt.text); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("def issue(ctx): pass\ndef revoke(ctx): pass\n")
	f.Add("x = [(lambda: 1) for i in range(3) if not i or -1]\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = script.Parse(text) })
}

func BenchmarkCall(b *testing.B) {
	parsed, err := script.Parse("def issue(ctx): return {'data': {'a': random.password()}}\ndef revoke(ctx): pass\n")
	if err != nil {
		b.Fatal(err)
	}
	r := &script.Runner{Script: parsed, Logger: slog.New(slog.DiscardHandler)}
	for b.Loop() {
		if _, _, err := r.Call(b.Context(), script.Issue, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// names answers the addresses of a name, each time the next.
type names struct{ next atomic.Int64 }

func (n *names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	answers := []string{"203.0.113.7", "127.0.0.1", "169.254.169.254", "10.1.2.3"}
	return []netip.Addr{netip.MustParseAddr(answers[int(n.next.Add(1)-1)%len(answers)])}, nil
}

// A name that leads to another address at each look-up leads to none that scripts may not reach.
func TestRebinding(t *testing.T) {
	t.Parallel()
	var reached []string
	r, _ := runner(t, "def issue(ctx):\n    for _ in range(9):\n        http.get('http://rebind.example/')\n", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
	})
	server := r.Hosts[0].Address
	dialer := &dial.Dialer{Resolver: &names{}, Through: func(ctx context.Context, network, address string) (net.Conn, error) {
		reached = append(reached, address)
		return new(net.Dialer).DialContext(ctx, network, server) // in the place of a public one
	}}
	r.Client = engine.HTTPClient(engine.Options{Dial: dialer.DialContext}, nil, 2)
	r.Hosts = []script.Host{{Scheme: "http", Address: "rebind.example:80"}}
	_, _, err := r.Call(t.Context(), script.Issue, nil)
	var f *script.Failure
	if !errors.As(err, &f) || f.Code != script.CodeHost || !slices.Equal(reached, []string{"203.0.113.7:80"}) {
		t.Errorf("%v, reached %v", err, reached)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Example.com": "https example.com:443", "example.com:8443": "https example.com:8443", "https://example.com": "https example.com:443",
		"http://127.0.0.1:15672": "http 127.0.0.1:15672", "http://localhost": "http localhost:80", "[::1]:1": "https [::1]:1",
	} {
		if h, err := script.ParseHost(text); err != nil || h.Scheme+" "+h.Address != want {
			t.Errorf("%s: %v, %v", text, h, err)
		}
	}
	for _, text := range []string{"", "http://example.com", "https://a:b@example.com", "example.com/path", "ftp://example.com", "example.com:0", "example.com:99999", "https://example.com?x", "*"} {
		if h, err := script.ParseHost(text); err == nil && text != "*" {
			t.Errorf("%s: %v", text, h)
		}
	}
	host := script.Host{Scheme: "https", Address: "api.example.com:443"}
	for pattern, want := range map[string]bool{
		"api.example.com": true, "API.example.com:443": true, "*.example.com": true, "*.example.com:443": true, "*.com": true,
		"example.com": false, "api.example.com:8443": false, "*.api.example.com": false, "*": false, "*ple.com": false, "": false,
	} {
		if got := host.Within([]string{"other.org", pattern}); got != want {
			t.Errorf("%s: %t", pattern, got)
		}
	}
}
