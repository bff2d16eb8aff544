// Package awstest gives tests an AWS to talk to: moto, which is a real server of IAM and STS, behind a
// front of ours that does what moto does not.
//
// moto keeps users, keys, policies and roles, and checks signatures and which actions policies allow.
// The front adds what the engine relies on and moto lacks: it refuses requests that are signed for a
// moment more than five minutes ago, keys that are inactive, sessions that have ended, roles that are
// not there and lives that are too short; it evaluates the resources and conditions of policies, and
// hides them from moto, to which every condition is met; it makes the tokens of GetSessionToken and
// GetFederationToken, which moto knows one of; it answers SimulatePrincipalPolicy; it writes errors as
// AWS does. And it throttles, fails, loses answers and is late, when a test wants it.
//
// moto is private to the process and dies with it. A front belongs to one test.
package awstest

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// TB is the part of testing.TB that awstest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Context() context.Context
}

// What every server has.
const (
	Account = "123456789012"
	Region  = "eu-central-1"
	service = "us-east-1" // the region that IAM is signed for
)

// Keys are what requests are signed with.
type Keys struct{ ID, Secret, Token string }

// Pool is a server that the tests of one process share.
type Pool struct {
	mu     sync.Mutex
	server *Server
}

// Shared is the process's server, started at the first call. It lives until Close.
func (p *Pool) Shared(t TB) *Server {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		s, err := start()
		if err != nil {
			t.Fatalf("start moto: %v", err)
		}
		p.server = s
	}
	return p.server
}

// Close ends the server.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		_ = p.server.process.Kill() // it is gone already, or gone now
		os.RemoveAll(p.server.dir)
	}
	p.server = nil
}

// Start runs a server until the end of the test.
func Start(t TB) *Server {
	t.Helper()
	p := &Pool{}
	t.Cleanup(p.Close)
	return p.Shared(t)
}

// Server is a moto with its administrator, and what the fronts know of it.
type Server struct {
	dir     string
	address string
	process *servertest.Process
	client  *http.Client
	admin   Keys
	state   *state

	one sync.Mutex // moto changes its tables without locks: it is asked one thing at a time
	log logged
}

func start() (*Server, error) {
	program := os.Getenv("SCAIVAULT_TEST_MOTO")
	if program == "" {
		checkout, err := servertest.Checkout()
		if err != nil {
			return nil, err
		}
		program = filepath.Join(checkout, ".cache", "moto", "moto_server")
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("there is no %s: run scripts/install-moto.sh", program)
	}
	port, err := freeport.Pick()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "awstest")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), state: newState(), client: &http.Client{Timeout: time.Minute}}
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", strconv.Itoa(port)) //nolint:noctx // ended by Close
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=" + dir, "MOTO_IAM_LOAD_MANAGED_POLICIES=true"}
	cmd.Dir = dir
	s.process, err = servertest.Start(cmd, func() bool {
		answer, err := s.client.Get("http://" + s.address + "/moto-api/") //nolint:noctx // on loopback: at once or never
		return err == nil && answer.Body.Close() == nil
	})
	if err == nil {
		err = s.setUp()
	}
	return s, err
}

// setUp makes the administrator while moto takes requests from everybody, and ends that.
func (s *Server) setUp() error {
	const name, everything = "administrator", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	calls := []url.Values{
		{"Action": {"CreateUser"}, "UserName": {name}},
		{"Action": {"PutUserPolicy"}, "UserName": {name}, "PolicyName": {"all"}, "PolicyDocument": {everything}},
		{"Action": {"CreateAccessKey"}, "UserName": {name}},
	}
	var last []byte
	for _, call := range calls {
		request, err := http.NewRequest(http.MethodPost, "http://"+s.address+"/", strings.NewReader(call.Encode())) //nolint:noctx // on loopback
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIA/20200101/"+service+"/iam/aws4_request, SignedHeaders=host, Signature=0")
		if last, err = said(s.client.Do(request)); err != nil {
			return fmt.Errorf("%s: %w", call.Get("Action"), err)
		}
	}
	var key keyAnswer
	if err := xml.Unmarshal(last, &key); err != nil {
		return err
	}
	s.admin = Keys{ID: key.ID, Secret: key.Secret}
	s.state.user(name, "/")
	s.state.put("user/"+name, "all", everything)
	s.state.key(name, s.admin)
	_, err := said(s.client.Post("http://"+s.address+"/moto-api/reset-auth", "application/json", strings.NewReader("0"))) //nolint:noctx // on loopback
	return err
}

func said(answer *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.300s", answer.StatusCode, body)
	}
	return body, err
}

// Left are the users that moto has by its own account, without the front, and how many keys and
// policies these have. Those that a test made for itself are not counted: their names begin otherwise.
func (s *Server) Left(t TB, prefix string) (users []string, keys, policies int) {
	t.Helper()
	direct, _ := s.Client("http://"+s.address, s.admin)
	s.one.Lock()
	defer s.one.Unlock()
	all, err := direct.GetAccountAuthorizationDetails(t.Context(), &iam.GetAccountAuthorizationDetailsInput{})
	if err != nil {
		t.Fatalf("read what moto has: %v", err)
	}
	for _, u := range all.UserDetailList {
		if !strings.HasPrefix(*u.UserName, prefix) {
			continue
		}
		users = append(users, *u.UserName)
		policies += len(u.UserPolicyList) + len(u.AttachedManagedPolicies)
		owned, err := direct.ListAccessKeys(t.Context(), &iam.ListAccessKeysInput{UserName: u.UserName})
		if err != nil {
			t.Fatalf("list the keys of %s: %v", *u.UserName, err)
		}
		keys += len(owned.AccessKeyMetadata)
	}
	return users, keys, policies
}

// Client is the official client with keys, through a front without faults.
func (s *Server) Client(endpoint string, k Keys) (*iam.Client, *sts.Client) {
	who := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret, SessionToken: k.Token}, nil
	})
	return iam.New(iam.Options{Region: Region, Credentials: who, BaseEndpoint: &endpoint, Retryer: aws.NopRetryer{}}),
		sts.New(sts.Options{Region: Region, Credentials: who, BaseEndpoint: &endpoint, Retryer: aws.NopRetryer{}})
}
