package aws_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/aws"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/test/awstest"
)

const hostsTenant = "tnt_hosts"

// machine is a host that has a role of an account with exactly the rights of the guide.
type machine struct {
	*account
	metadata *awstest.Metadata
	hostRole string
	token    string            // file of the web identity
	env      map[string]string // of the server
}

func newMachine(t *testing.T, more ...string) *machine {
	t.Helper()
	m := &machine{account: newAccount(t)}
	name := strings.Replace(m.user, "scaivault-root", "app-host", 1) // which root may assume
	m.hostRole = m.front.Role(t, name, strings.ReplaceAll(guide(t, "aws-root"), "user/scaivault-root", "user/"+m.user))
	for _, extra := range more {
		policy := guide(t, extra)
		if _, err := m.front.Admin().PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: &extra, PolicyDocument: &policy}); err != nil {
			t.Fatal(err)
		}
	}
	m.metadata = m.front.Metadata(t, m.hostRole)
	m.token = filepath.Join(t.TempDir(), "web-identity")
	m.writeToken(t, "first-web-identity")
	m.env = map[string]string{
		"AWS_EC2_METADATA_SERVICE_ENDPOINT":      m.metadata.URL,
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     m.metadata.URL + "/v1/credentials",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": m.metadata.TokenFile,
		"AWS_WEB_IDENTITY_TOKEN_FILE":            m.token, "AWS_ROLE_ARN": m.hostRole,
		"AWS_ENDPOINT_URL_IAM": m.endpoint, "AWS_ENDPOINT_URL_STS": m.endpoint,
	}
	return m
}

// writeToken replaces the web identity's token, as its provider does.
func (m *machine) writeToken(t *testing.T, token string) {
	t.Helper()
	if err := os.WriteFile(m.token, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	m.front.WebIdentity(token, m.hostRole)
}

// kind is the engine's type where the operator gives a source of the host's identity to one engine.
func (m *machine) kind(t *testing.T, source string) aws.Type {
	t.Helper()
	h, err := aws.NewHost(source, []string{hostsTenant + "/cloud"}, func(name string) string { return m.env[name] })
	if err != nil {
		t.Fatal(err)
	}
	return aws.Type{Host: h}
}

func (m *machine) options(extra map[string]any) engine.Options {
	without := map[string]any{"ambient": true, "root_credentials_path": "", "iam_endpoint": "", "sts_endpoint": ""}
	for k, v := range extra {
		without[k] = v
	}
	o := m.account.options(without)
	o.Root, o.Tenant, o.EngineName = nil, hostsTenant, "cloud"
	return o
}

func (m *machine) open(t *testing.T, source string) *aws.Engine {
	t.Helper()
	return enginetest.Open[*aws.Engine](t, m.kind(t, source), m.options(nil))
}

// failsToOpen is why an engine of the host's identity cannot be opened.
func (m *machine) failsToOpen(t *testing.T, source string, extra map[string]any) error {
	t.Helper()
	e, err := m.kind(t, source).Open(t.Context(), m.options(extra))
	if err == nil {
		e.Close()
		t.Fatal("it opens")
	}
	return err
}

// The suite, with keys that the host is given.
func TestAmbientConformance(t *testing.T) {
	t.Parallel()
	for kind, policies := range map[string][]string{"iam_user": nil, "assumed_role": {"aws-end-sessions"}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, func(t *testing.T) *enginetest.Target {
				m := newMachine(t, policies...)
				target := m.target(t, kind)
				target.Open = func(t *testing.T, o enginetest.Opening) engine.Engine {
					at, extra := *m, map[string]any{}
					if o.Address != "" {
						at.env = map[string]string{}
						for k, v := range m.env {
							at.env[k] = strings.ReplaceAll(v, m.endpoint, "http://"+o.Address)
						}
					}
					if o.OperationTimeout != 0 {
						patience := (requests * o.OperationTimeout).String()
						extra["operation_timeout"], extra["connect_timeout"] = patience, patience
					}
					options := m.options(extra)
					options.Node, options.Epoch = enginetest.Node, o.Epoch
					return enginetest.Open[*aws.Engine](t, at.kind(t, "instance"), options)
				}
				target.Elsewhere = func(t *testing.T) engine.Engine {
					return enginetest.Open[*aws.Engine](t, m.kind(t, "instance"), m.options(map[string]any{"source_id": "elsewhere"}))
				}
				if target.Exceptions == nil {
					target.Exceptions = map[string]string{}
				}
				target.Exceptions["RotateRoot"] = "the host's keys are replaced where they come from"
				for _, name := range []string{"BlackHole", "Frozen"} { // long waits
					target.Exceptions[name] = "the way to AWS is the same with every root"
				}
				return target
			})
		})
	}
}

// Every source gives an engine that makes users, and health says whose identity it has.
func TestAmbientSources(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, source := range []string{"instance", "container", "web_identity"} {
		e := m.open(t, source)
		c := issue(t, e, m.roleOf(t, "iam_user"), time.Hour)
		if err := m.try(t.Context(), c.Data, "iam_user"); err != nil {
			t.Errorf("%s: use it: %v", source, err)
		}
		revoke(t, e, c.recipe)
		h := e.Check(t.Context())
		if h.Status != "healthy" || len(h.MissingGrants) > 0 || h.Details["root"] != "host: "+source ||
			!strings.Contains(h.Details["identity"], ":assumed-role/"+m.hostRole[strings.LastIndex(m.hostRole, "/")+1:]+"/") {
			t.Errorf("%s: %+v", source, h)
		}
		if _, err := e.PlanRoot(t.Context()); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), "host") {
			t.Errorf("%s: rotate the root: %v", source, err)
		}
	}
}

// What the host's role lacks is named, by IAM's own judgement of that role.
func TestAmbientHealth(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	e := m.open(t, "instance")
	role, name := m.hostRole[strings.LastIndex(m.hostRole, "/")+1:], "role"
	policy := strings.ReplaceAll(guide(t, "aws-root"), `"iam:CreateAccessKey"`, `"iam:Nothing"`)
	if _, err := m.front.Admin().PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &role, PolicyName: &name, PolicyDocument: &policy}); err != nil {
		t.Fatal(err)
	}
	h := e.Check(t.Context())
	if h.Status != "misconfigured" || len(h.MissingGrants) != 1 || !strings.Contains(h.MissingGrants[0], "iam:CreateAccessKey") {
		t.Errorf("%+v", h)
	}
}

// The identity is the operator's: who may write engines has it only where the operator said so.
func TestAmbientIsDenied(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	given := m.kind(t, "instance")
	for name, change := range map[string]func(*engine.Options) aws.Type{
		"by default":      func(*engine.Options) aws.Type { return aws.Type{} },
		"another tenant":  func(o *engine.Options) aws.Type { o.Tenant = "tnt_other"; return given },
		"another engine":  func(o *engine.Options) aws.Type { o.EngineName = "cloud2"; return given },
		"a longer tenant": func(o *engine.Options) aws.Type { o.Tenant = hostsTenant + "/cloud"; o.EngineName = "x"; return given },
		"all of another": func(_ *engine.Options) aws.Type {
			h, err := aws.NewHost("instance", []string{"tnt_other/*"}, func(name string) string { return m.env[name] })
			if err != nil {
				t.Fatal(err)
			}
			return aws.Type{Host: h}
		},
	} {
		o := m.options(nil)
		kind := change(&o)
		if _, err := kind.Open(t.Context(), o); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), "AMBIENT_AWS_ENGINES") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := m.metadata.Taken(); n != 0 {
		t.Errorf("the keys were taken %d times", n)
	}
	all, err := aws.NewHost("instance", []string{"tnt_other/x", hostsTenant + "/*"}, func(name string) string { return m.env[name] })
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Open[*aws.Engine](t, aws.Type{Host: all}, m.options(nil))
}

// Whatever a metadata service does instead of giving keys, no engine opens, the reason is told, and
// nothing of an answer is repeated.
func TestAmbientRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	var elsewhere sync.Map
	trap := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere.Store(r.URL.Path, true) }))
	t.Cleanup(trap.Close)
	const canary = "canary-of-an-answer"
	var endless atomic.Int64
	flood := func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write([]byte(`{"AccessKeyId": "`))
		for block := []byte(strings.Repeat("a", 1<<20)); err == nil && endless.Load() < 256; endless.Add(1) {
			_, err = w.Write(block)
		}
	}
	keys := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
			}
			_, _ = w.Write([]byte(text))
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = w.Write([]byte(canary)) }
	}
	version1 := func(code int) http.HandlerFunc { // answers keys to whoever asks, as the first version did
		return func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPut:
				w.WriteHeader(code)
			case strings.HasSuffix(r.URL.Path, "/"):
				_, _ = w.Write([]byte("role"))
			default:
				_, _ = w.Write([]byte(`{"Code": "Success", "AccessKeyId": "ASIA", "SecretAccessKey": "` + canary + `", "Token": "x", "Expiration": "2099-01-01T00:00:00Z"}`))
			}
		}
	}
	for name, c := range map[string]struct {
		source string
		answer http.HandlerFunc
		kind   engine.Kind
		says   string
	}{
		"version 1, 404":       {"instance", version1(404), engine.Misconfigured, "IMDSv2"},
		"version 1, 403":       {"instance", version1(403), engine.Misconfigured, "IMDSv2"},
		"version 1, 405":       {"instance", version1(405), engine.Misconfigured, "IMDSv2"},
		"version 1, 200":       {"instance", version1(200), engine.Misconfigured, "IMDSv2"},
		"version 1, 500":       {"instance", version1(500), engine.Unreachable, "500"},
		"no role":              {"instance", func(w http.ResponseWriter, r *http.Request) { keys(canary)(statusOfGet{w, r, 404}, r) }, engine.Misconfigured, "profile"},
		"instance redirects":   {"instance", http.RedirectHandler(trap.URL, http.StatusTemporaryRedirect).ServeHTTP, engine.Misconfigured, "redirects"},
		"container redirects":  {"container", http.RedirectHandler(trap.URL, http.StatusFound).ServeHTTP, engine.Misconfigured, "redirects"},
		"container fails":      {"container", status(500), engine.Unreachable, "500"},
		"container has none":   {"container", status(404), engine.Misconfigured, "role"},
		"no JSON":              {"container", keys(canary), engine.Unreachable, "something else"},
		"empty":                {"container", keys("{}"), engine.Unreachable, "none"},
		"null":                 {"container", keys("null"), engine.Unreachable, "something else"},
		"an endless answer":    {"container", flood, engine.Unreachable, "something else"},
		"long-lived keys":      {"container", keys(`{"AccessKeyId": "AKIA", "SecretAccessKey": "` + canary + `"}`), engine.Misconfigured, "long-lived"},
		"keys without an end":  {"container", keys(`{"AccessKeyId": "ASIA", "SecretAccessKey": "` + canary + `", "Token": "x"}`), engine.Misconfigured, "long-lived"},
		"keys that have ended": {"container", keys(`{"AccessKeyId": "ASIA", "SecretAccessKey": "` + canary + `", "Token": "x", "Expiration": "2020-01-01T00:00:00Z"}`), engine.Unreachable, "ended"},
	} {
		m.metadata.SetAnswer(c.answer)
		err := m.failsToOpen(t, c.source, nil)
		if engine.KindOf(err) != c.kind || !strings.Contains(reason(err), c.says) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := endless.Load(); n >= 256 {
		t.Errorf("%d MB of an endless answer were read", n)
	}
	elsewhere.Range(func(path, _ any) bool { t.Errorf("a redirect was followed to %s", path); return true })
	m.metadata.SetAnswer(nil)
	if err := os.WriteFile(m.metadata.TokenFile, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.failsToOpen(t, "container", nil); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), "authorization token") {
		t.Errorf("another token: %v", err)
	}
	for source, file := range map[string]string{"container": m.metadata.TokenFile, "web_identity": m.token} {
		for _, change := range []func(string) error{func(f string) error { return os.WriteFile(f, []byte("\n"), 0o600) }, os.Remove} {
			if err := change(file); err != nil {
				t.Fatal(err)
			}
			if err := m.failsToOpen(t, source, nil); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), "TOKEN_FILE") {
				t.Errorf("%s without a token: %v", source, err)
			}
		}
	}
	if err := os.WriteFile(m.token, []byte("forged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.failsToOpen(t, "web_identity", nil); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), "AccessDenied") {
		t.Errorf("a forged token: %v", err)
	}
}

// statusOfGet answers requests that are no PUT with a status.
type statusOfGet struct {
	http.ResponseWriter
	r    *http.Request
	code int
}

func (s statusOfGet) Write(b []byte) (int, error) {
	if s.r.Method != http.MethodPut {
		s.WriteHeader(s.code)
	}
	return s.ResponseWriter.Write(b)
}

// A metadata service that hangs keeps an operation no longer than the engine's own time.
func TestAmbientHangs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.metadata.SetAnswer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, source := range []string{"instance", "container"} {
		start := time.Now()
		err := m.failsToOpen(t, source, map[string]any{"connect_timeout": "1s", "operation_timeout": "2s"})
		if engine.KindOf(err) != engine.Unreachable || !strings.Contains(reason(err), "does not answer") || time.Since(start) > time.Minute {
			t.Errorf("%s: after %s: %v", source, time.Since(start), err)
		}
	}
	m.metadata.SetAnswer(nil)
	m.open(t, "instance")
}

// While the source of the keys is away, those that are good go on. When they have ended nothing is sent
// to AWS any more; with the next keys everything goes on, also what was begun with former ones.
func TestAmbientOutlivesItsKeys(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	var log bytes.Buffer
	var mu sync.Mutex
	o := m.options(nil)
	o.Logger = slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return log.Write(b) }), nil))
	m.metadata.SetLife(10 * time.Second)
	former := m.metadata.Renew(t)
	e := enginetest.Open[*aws.Engine](t, m.kind(t, "instance"), o)
	c := issue(t, e, m.roleOf(t, "iam_user"), time.Hour)
	if n := m.metadata.Taken(); n != 1 {
		t.Errorf("keys were taken %d times", n)
	}
	m.metadata.SetAnswer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	for deadline := time.Now().Add(time.Minute); ; {
		_, err := e.Lookup(t.Context(), c.recipe)
		if engine.KindOf(err) == engine.Unreachable && strings.Contains(reason(err), "503") {
			break
		}
		if err != nil || time.Now().After(deadline) || !engine.Wait(t.Context(), 100*time.Millisecond) {
			t.Fatalf("at the end of the keys: %v", err)
		}
	}
	p := plan(t, e, m.roleOf(t, "iam_user"), time.Hour)
	if _, err := e.Issue(t.Context(), p); engine.KindOf(err) != engine.Unreachable { // not Uncertain
		t.Errorf("issue without keys: %v", err)
	}
	m.metadata.Forget()
	present := m.metadata.Renew(t)
	m.metadata.SetLife(time.Hour)
	m.metadata.SetAnswer(nil)
	revoke(t, e, p.Recipe)
	revoke(t, e, c.recipe)
	if slices.Contains(m.front.Users(t), c.Username) {
		t.Error("the user is there")
	}
	mu.Lock()
	defer mu.Unlock()
	for _, secret := range []string{former.Secret, former.Token, present.Secret, present.Token} {
		if strings.Contains(log.String(), secret) {
			t.Error("a key is in the log")
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// What STS does not give to temporary keys is refused when the role is saved, and longer lives with it.
func TestTemporaryRoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	assumed := enginetest.Open[*aws.Engine](t, aws.Type{}, m.account.options(map[string]any{"role_arn": m.hostRole}))
	for name, e := range map[string]*aws.Engine{"ambient": m.open(t, "instance"), "role_arn": assumed} {
		for _, kind := range []string{"federation_token", "session_token"} {
			if _, err := e.PrepareRole(t.Context(), "r", m.roleOf(t, kind)); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), kind) {
				t.Errorf("%s: save a role of %s: %v", name, kind, err)
			}
			_, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: "lease_x", RoleName: "r", Role: m.roleOf(t, kind), ExpiresAt: time.Now().Add(time.Hour)})
			if engine.KindOf(err) != engine.Refused {
				t.Errorf("%s: plan %s: %v", name, kind, err)
			}
		}
		_, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: "lease_x", RoleName: "r", Role: m.roleOf(t, "assumed_role"), ExpiresAt: time.Now().Add(2 * time.Hour)})
		if engine.KindOf(err) != engine.Refused || !strings.Contains(reason(err), "1h") {
			t.Errorf("%s: two hours: %v", name, err)
		}
		issue(t, e, m.roleOf(t, "assumed_role"), time.Hour)
	}
	for document, want := range map[string]time.Duration{
		`{"region": "eu-west-1", "ambient": true}`:                                                              time.Hour,
		`{"region": "eu-west-1", "root_credentials_path": "x", "role_arn": "arn:aws:iam::123456789012:role/x"}`: time.Hour,
		`{"region": "eu-west-1", "root_credentials_path": "x"}`:                                                 12 * time.Hour,
	} {
		c, err := aws.Type{}.ParseConfig([]byte(document))
		if err != nil || c.Bounds(m.roleOf(t, "assumed_role")).Longest != want || c.Bounds(m.roleOf(t, "iam_user")).Longest != 0 {
			t.Errorf("%s: %v", document, err)
		}
	}
}

// An ambient engine with a role assumes it with the host's keys.
func TestAmbientAssumesARole(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	e := enginetest.Open[*aws.Engine](t, m.kind(t, "web_identity"), m.options(map[string]any{"role_arn": m.role}))
	_, err := e.Issue(t.Context(), plan(t, e, m.roleOf(t, "iam_user"), time.Hour))
	if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), "iam:CreateUser") {
		t.Errorf("the role may not make users, and the host makes them: %v", err)
	}
	if h := e.Check(t.Context()); !strings.Contains(h.Details["identity"], ":assumed-role/app-") {
		t.Errorf("%+v", h)
	}
}
