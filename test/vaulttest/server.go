package vaulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// Server is one `scaivault dev` with its own folder, or one node of a shared
// store. Its address stays the same over restarts; the token of dev's
// administrator does not.
type Server struct {
	URL string
	Dir string // the data folder

	addr, metricsAddr string
	arguments, env    []string
	program           string
	output            buffer
	ready             func() (token string) // "" while it is not

	mu      sync.Mutex
	token   string
	process *servertest.Process // nil while it does not run
}

// Start runs a server until the end of the test. Variables of the environment
// are its settings, NAME=value; rate limits are off unless they say otherwise.
func Start(t TB, env ...string) *Server {
	t.Helper()
	return StartProgram(t, Program(t), env...)
}

// StartProgram is Start of another program, such as Failing.
func StartProgram(t TB, program string, env ...string) *Server {
	t.Helper()
	s := newServer(t, program, env)
	s.arguments = []string{"dev", "--data", s.Dir, "--addr", s.addr}
	s.ready = s.devToken
	s.Run(t)
	return s
}

func newServer(t TB, program string, env []string) *Server {
	t.Helper()
	s := &Server{
		addr: freeAddr(t), metricsAddr: freeAddr(t), program: program,
		Dir: filepath.Join(t.TempDir(), "vault"),
	}
	s.URL = "http://" + s.addr
	s.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(s.Dir), "TMPDIR=" + os.TempDir(),
		"METRICS_ADDRESS=" + s.metricsAddr, "SCAIVAULT_RATE_LIMITS=off", "SCAIVAULT_FAILPOINTS=" + s.armedBy(),
	}, env...)
	t.Cleanup(func() {
		if s.Running() {
			s.Kill(t)
		}
	})
	return s
}

// Run starts a server that was stopped or killed, on the same folder, and
// returns when it is ready.
func (s *Server) Run(t TB) {
	t.Helper()
	if err := s.TryRun(); err != nil {
		t.Fatalf("start scaivault: %v; its output: %s", err, s.Output())
	}
}

// TryRun is Run for a server that may find its store away.
func (s *Server) TryRun() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return errors.New("it is running")
	}
	if err := os.Remove(s.devFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	cmd := exec.Command(s.program, s.arguments...) //nolint:noctx // ended by Kill and Stop
	cmd.Env = s.env
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	token := ""
	process, err := servertest.Start(cmd, func() bool {
		token = s.ready()
		return token != ""
	})
	if err != nil {
		return err
	}
	s.process, s.token = process, token
	return nil
}

func (s *Server) devFile() string { return filepath.Join(s.Dir, "dev.json") }

// devToken is in the file that dev writes once it is ready.
func (s *Server) devToken() string {
	var dev struct{ Token string }
	if text, err := os.ReadFile(s.devFile()); err != nil || json.Unmarshal(text, &dev) != nil {
		return ""
	}
	return dev.Token
}

// serving is the token of the store's first administrator once the node answers.
func (s *Server) serving() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/v1/health", nil)
	if err != nil {
		return ""
	}
	answer, err := (&http.Client{}).Do(request)
	if err != nil {
		return ""
	}
	_ = answer.Body.Close()
	if s.token != "" || answer.StatusCode != http.StatusOK {
		return s.token
	}
	text, _ := os.ReadFile(filepath.Join(s.Dir, "bootstrap-token"))
	return string(bytes.TrimSpace(text))
}

// Kill is kill -9.
func (s *Server) Kill(t TB) {
	t.Helper()
	s.Signal(t, syscall.SIGKILL)
	if _, err := s.wait(); err != nil {
		t.Fatalf("kill scaivault: %v", err)
	}
}

// Stop tells the server to shut down and waits for its end.
func (s *Server) Stop(t TB) {
	t.Helper()
	s.Signal(t, syscall.SIGTERM)
	s.Wait(t)
}

// Signal sends a signal and does not wait.
func (s *Server) Signal(t TB, signal syscall.Signal) {
	t.Helper()
	if err := s.running().Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal scaivault: %v", err)
	}
}

// Wait waits for the end of a server that was told to shut down, which must be
// orderly.
func (s *Server) Wait(t TB) {
	t.Helper()
	state, err := s.wait()
	if err != nil {
		t.Fatalf("wait for scaivault: %v", err)
	}
	if !state.Success() {
		t.Fatalf("scaivault was told to stop and ended with %v; its output: %s", state, s.Output())
	}
}

func (s *Server) wait() (*os.ProcessState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, err := s.process.Wait()
	if err != nil {
		return nil, fmt.Errorf("%w; its output: %s", err, s.output.String())
	}
	s.process = nil
	return state, nil
}

// Running tells whether the server was started and neither stopped nor seen dead.
func (s *Server) Running() bool { return s.running() != nil }

func (s *Server) running() *servertest.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// Token is the present administrator's.
func (s *Server) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// Admin is a client of the present administrator. It never tries again by
// itself: tests want to see every answer.
func (s *Server) Admin(t TB) *client.Client {
	t.Helper()
	return s.Client(t, client.Config{Token: s.Token()})
}

// Client is a client of the server for somebody else.
func (s *Server) Client(t TB, c client.Config) *client.Client {
	t.Helper()
	c.URL, c.Retries = s.URL, -1
	made, err := client.New(c)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	return made
}

// Output is all that the server has printed since it was made, restarts
// included.
func (s *Server) Output() string { return s.output.String() }

// Metrics is the page of metrics.
func (s *Server) Metrics(t TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metricsAddr+"/metrics", nil)
	if err != nil {
		t.Fatalf("make a request: %v", err)
	}
	answer, err := (&http.Client{}).Do(request)
	if err != nil {
		t.Fatalf("read the metrics: %v", err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("read the metrics: status %d, %v", answer.StatusCode, err)
	}
	return string(page)
}

func freeAddr(t TB) string {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Fatalf("start the server: %v", err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// buffer collects output and can be read meanwhile.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
