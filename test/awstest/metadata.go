package awstest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// hostRole is the name by which the metadata service of an instance calls its role.
const hostRole = "scaivault-host"

// Metadata is what a machine of AWS asks for its identity: the metadata service of an instance, version
// 2 alone, and the credentials service of a container. The keys that it tells are sessions of a role,
// which the front takes as STS has made them. It belongs to one test.
type Metadata struct {
	URL string
	// TokenFile holds what a container's requests are authorized by.
	TokenFile string

	http  *httptest.Server
	front *Front
	role  string

	mu      sync.Mutex
	instead http.HandlerFunc
	life    time.Duration
	keys    Keys
	taken   int
	token   string
}

// Metadata opens a metadata service of a machine that has a role, by its ARN, until the end of the test.
func (f *Front) Metadata(t interface {
	TB
	TempDir() string
}, role string) *Metadata {
	t.Helper()
	m := &Metadata{TokenFile: filepath.Join(t.TempDir(), "token"), front: f, role: role, life: time.Hour, token: "container-token-1"}
	if err := os.WriteFile(m.TokenFile, []byte(m.token+"\n"), 0o600); err != nil {
		t.Fatalf("write the token: %v", err)
	}
	m.Renew(t)
	m.http = httptest.NewServer(m)
	m.URL = m.http.URL
	t.Cleanup(func() {
		m.http.CloseClientConnections() // one that hangs is not waited for
		m.http.Close()
	})
	return m
}

// Renew makes the keys that are told from now on.
func (m *Metadata) Renew(t TB) Keys {
	t.Helper()
	_, sessions := m.front.Clients(m.front.server.admin)
	name, seconds := "i-0123456789abcdef0", int32(3600)
	made, err := sessions.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &m.role, RoleSessionName: &name, DurationSeconds: &seconds})
	if err != nil {
		t.Fatalf("make keys of the host: %v", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = Keys{*made.Credentials.AccessKeyId, *made.Credentials.SecretAccessKey, *made.Credentials.SessionToken}
	return m.keys
}

// Forget makes AWS take the keys that were told until now no more, as it does when they have ended.
func (m *Metadata) Forget() {
	m.mu.Lock()
	id := m.keys.ID
	m.mu.Unlock()
	m.front.server.one.Lock()
	defer m.front.server.one.Unlock()
	m.front.server.state.holders[id].ends = time.Now().Add(-time.Second)
}

// SetLife is how long the keys are said to live when they are told.
func (m *Metadata) SetLife(life time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life = life
}

// SetAnswer answers in the place of the service; nil for the service itself.
func (m *Metadata) SetAnswer(instead http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.instead = instead
}

// Taken is how often keys were told.
func (m *Metadata) Taken() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.taken
}

const metadataToken = "AQAEAexample=="

func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	instead := m.instead
	m.mu.Unlock()
	const list = "/latest/meta-data/iam/security-credentials/"
	switch {
	case instead != nil:
		instead(w, r)
	case r.URL.Path == "/latest/api/token":
		life, err := strconv.Atoi(r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		if r.Method != http.MethodPut || err != nil || life < 1 || life > 21600 || r.Header.Get("X-Forwarded-For") != "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", strconv.Itoa(life))
		_, _ = w.Write([]byte(metadataToken)) // who has gone needs no answer
	case strings.HasPrefix(r.URL.Path, list) && r.Header.Get("X-Aws-Ec2-Metadata-Token") != metadataToken:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == list:
		_, _ = w.Write([]byte(hostRole)) // as above
	case r.URL.Path == list+hostRole:
		m.tell(w)
	case r.URL.Path == "/v1/credentials":
		if r.Header.Get("Authorization") != m.token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		m.tell(w)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (m *Metadata) tell(w http.ResponseWriter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken++
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // as above
		"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": time.Now().UTC(), "AccessKeyId": m.keys.ID, "SecretAccessKey": m.keys.Secret,
		"Token": m.keys.Token, "Expiration": time.Now().Add(m.life).UTC(),
	})
}

// WebIdentity is a token for which STS gives sessions of a role, by its ARN.
func (f *Front) WebIdentity(token, role string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.web = webIdentity{token, role}
}

// webIdentity is a token that an identity provider has signed, and the role that trusts it.
type webIdentity struct{ token, role string }

// assumeByWeb answers AssumeRoleWithWebIdentity, which is not signed.
func (f *Front) assumeByWeb(r *http.Request, role, name, token string) answer {
	f.mu.Lock()
	known := f.web
	f.mu.Unlock()
	if known.token == "" || token != known.token || role != known.role {
		return refusal(http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
	}
	seconds := int32(3600)
	_, sessions := f.Clients(f.server.admin)
	made, err := sessions.AssumeRole(r.Context(), &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &name, DurationSeconds: &seconds})
	if err != nil {
		return refusal(http.StatusInternalServerError, "ServiceFailure", "%v", err)
	}
	c := made.Credentials
	return result("AssumeRoleWithWebIdentity", "<Credentials><AccessKeyId>"+*c.AccessKeyId+"</AccessKeyId><SecretAccessKey>"+*c.SecretAccessKey+
		"</SecretAccessKey><SessionToken>"+*c.SessionToken+"</SessionToken><Expiration>"+c.Expiration.UTC().Format(time.RFC3339)+"</Expiration></Credentials>")
}
