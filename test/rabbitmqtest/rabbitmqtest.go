// Package rabbitmqtest gives tests a real RabbitMQ to talk to: its management API, and STOMP for
// sessions of its users.
//
// Every server is private: its own folder, its own ports on 127.0.0.1. It dies with the process that
// started it.
package rabbitmqtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	"time"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// Server is one RabbitMQ.
type Server struct {
	API   string // host:port of the management API, in clear
	STOMP string // host:port

	dir     string
	ports   [ports]int
	process *servertest.Process
	mapper  *servertest.Process // Erlang's own, without which RabbitMQ stops after a minute
}

// The ports of a server.
const (
	apiPort = iota
	stompPort
	amqpPort
	mapperPort
	nodePort // of Erlang nodes among themselves
	ports
)

// The administrator that a fresh server has.
const (
	adminName     = "guest"
	adminPassword = "guest"
)

// installCommand is what a person runs when the server is missing.
const installCommand = "scripts/install-rabbitmq.sh"

// Start runs a server until Stop, with its files in dir.
func Start(dir string) (*Server, error) {
	root, err := find()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	for i := range s.ports {
		if s.ports[i], err = freeport.Pick(); err != nil {
			return nil, err
		}
	}
	s.API, s.STOMP = local(s.ports[apiPort]), local(s.ports[stompPort])
	for name, text := range map[string]string{
		"rabbitmq.conf": fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d\nstomp.listeners.tcp.1 = %s\nlisteners.tcp.1 = %s\n"+
			"collect_statistics_interval = 1000\nlog.console = true\nlog.console.level = debug\nlog.file = false\n", s.ports[apiPort], s.STOMP, local(s.ports[amqpPort])),
		"enabled_plugins": "[rabbitmq_management, rabbitmq_stomp].\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if err := s.startMapper(root); err != nil {
		return nil, fmt.Errorf("start Erlang's port mapper: %w", err)
	}
	log, err := os.Create(s.logFile())
	if err != nil {
		return nil, err
	}
	defer log.Close() // the server has it
	cmd := s.command(root)
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = servertest.Start(cmd, s.ready); err != nil {
		_ = s.mapper.Kill() // nothing needs it
		log, _ := os.ReadFile(s.logFile())
		return nil, fmt.Errorf("start RabbitMQ: %w; its log: %s", err, log)
	}
	return s, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// find answers the folder that the install script fills, or that the environment names.
func find() (string, error) {
	root := os.Getenv("SCAIVAULT_TEST_RABBITMQ")
	if root == "" {
		checkout, err := servertest.Checkout()
		if err != nil {
			return "", err
		}
		root = filepath.Join(checkout, ".cache", "rabbitmq", "root")
	}
	if _, err := os.Stat(filepath.Join(root, "usr", "lib", "rabbitmq")); err != nil {
		return "", fmt.Errorf("there is no RabbitMQ in %s: run %s", root, installCommand)
	}
	return root, nil
}

func (s *Server) startMapper(root string) (err error) {
	port := strconv.Itoa(s.ports[mapperPort])
	cmd := exec.Command(filepath.Join(first(filepath.Join(root, "usr", "lib", "erlang", "erts-*", "bin")), "epmd"), "-port", port, "-address", "127.0.0.1") //nolint:noctx // ended by Stop
	cmd.Dir, cmd.Env = s.dir, []string{"PATH=/usr/bin:/bin"}
	s.mapper, err = servertest.Start(cmd, func() bool { return listens(local(s.ports[mapperPort])) })
	return err
}

func listens(address string) bool {
	conn, err := net.Dial("tcp", address) //nolint:noctx // on loopback: at once or never
	return err == nil && conn.Close() == nil
}

// command starts the virtual machine itself: the packages' scripts know the packages' folders only.
func (s *Server) command(root string) *exec.Cmd {
	erlang := filepath.Join(root, "usr", "lib", "erlang")
	bin := first(filepath.Join(erlang, "erts-*", "bin"))
	home := first(filepath.Join(root, "usr", "lib", "rabbitmq", "lib", "rabbitmq_server-*"))
	node := strconv.Itoa(s.ports[nodePort])
	cmd := exec.Command(filepath.Join(bin, "erlexec"), //nolint:noctx // ended by Stop
		"-noinput", "-boot", filepath.Join(erlang, "bin", "start_sasl"), "-s", "rabbit", "boot",
		"-sname", "test@localhost", "-start_epmd", "false", "-kernel", "inet_dist_use_interface", "{127,0,0,1}",
		"-kernel", "inet_dist_listen_min", node, "-kernel", "inet_dist_listen_max", node, "+W", "w", "+sbwt", "none", "+S", "1:1")
	cmd.Dir = s.dir
	cmd.Env = []string{
		"ERL_EPMD_PORT=" + strconv.Itoa(s.ports[mapperPort]), "ERL_EPMD_ADDRESS=127.0.0.1",
		"HOME=" + s.dir, "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "ROOTDIR=" + erlang, "BINDIR=" + bin, "EMU=beam", "PROGNAME=erl",
		"ERL_LIBS=" + filepath.Join(home, "plugins"), "RABBITMQ_HOME=" + home, "RABBITMQ_PLUGINS_DIR=" + filepath.Join(home, "plugins"),
		"RABBITMQ_BASE=" + s.dir, "RABBITMQ_NODENAME=test@localhost", "RABBITMQ_MNESIA_BASE=" + filepath.Join(s.dir, "mnesia"), "RABBITMQ_LOG_BASE=" + s.dir,
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(s.dir, "rabbitmq.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(s.dir, "enabled_plugins"),
	}
	return cmd
}

func first(pattern string) string {
	found, _ := filepath.Glob(pattern) // the pattern is well formed
	if len(found) == 0 {
		return pattern
	}
	return found[0]
}

func (s *Server) ready() bool {
	status, _, err := s.Ask(http.MethodGet, "/api/health/checks/local-alarms", nil)
	if err != nil || status != http.StatusOK {
		return false
	}
	return listens(s.STOMP)
}

// Stop is kill -9.
func (s *Server) Stop() error { return errors.Join(s.process.Kill(), s.mapper.Kill()) }

func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// Log is all that the server has logged.
func (s *Server) Log() (string, error) {
	text, err := os.ReadFile(s.logFile())
	return string(text), err
}

// Ask sends a request to the management API as the administrator, with a body where one is given.
func (s *Server) Ask(method, path string, body any) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	text := []byte{}
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.API+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	request.SetBasicAuth(adminName, adminPassword)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// Users are the names of all users.
func (s *Server) Users() ([]string, error) {
	_, answer, err := s.Ask(http.MethodGet, "/api/users", nil)
	if err != nil {
		return nil, err
	}
	var users []struct{ Name string }
	if err := json.Unmarshal(answer, &users); err != nil {
		return nil, err
	}
	var names []string
	for _, u := range users {
		names = append(names, u.Name)
	}
	return names, nil
}

// AddUser makes a user with tags, such as administrator.
func (s *Server) AddUser(name, password, tags string) error {
	status, answer, err := s.Ask(http.MethodPut, "/api/users/"+url.PathEscape(name), map[string]string{"password": password, "tags": tags})
	if err == nil && status >= http.StatusMultipleChoices {
		err = fmt.Errorf("add user %s: %d %s", name, status, answer)
	}
	return err
}

// AddTags gives a user tags and keeps its password.
func (s *Server) AddTags(name, tags string) error {
	path := "/api/users/" + url.PathEscape(name)
	_, answer, err := s.Ask(http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	var user struct {
		Hash string `json:"password_hash"`
	}
	if err := json.Unmarshal(answer, &user); err != nil {
		return err
	}
	status, answer, err := s.Ask(http.MethodPut, path, map[string]string{"password_hash": user.Hash, "tags": tags})
	if err == nil && status >= http.StatusMultipleChoices {
		err = fmt.Errorf("give user %s tags: %d %s", name, status, answer)
	}
	return err
}

// Session is a connection of a user over STOMP.
type Session struct {
	conn   net.Conn
	number int
}

// Login opens a session in the virtual host /.
func (s *Server) Login(ctx context.Context, user, password string) (*Session, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.STOMP)
	if err != nil {
		return nil, err
	}
	session := &Session{conn: conn}
	answer, err := session.exchange(ctx, "CONNECT\naccept-version:1.2\nhost:/\nlogin:"+user+"\npasscode:"+password+"\n\n\x00")
	if err == nil && !strings.HasPrefix(answer, "CONNECTED") {
		err = fmt.Errorf("log in: %.200s", answer)
	}
	if err != nil {
		session.Close()
		return nil, err
	}
	return session, nil
}

// Works tells whether the session can still send a message.
func (s *Session) Works(ctx context.Context) bool {
	s.number++
	receipt := strconv.Itoa(s.number)
	answer, err := s.exchange(ctx, "SEND\ndestination:/topic/test\nreceipt:"+receipt+"\n\nhello\x00")
	return err == nil && strings.HasPrefix(answer, "RECEIPT") && strings.Contains(answer, "receipt-id:"+receipt)
}

// exchange sends a frame and reads one.
func (s *Session) exchange(ctx context.Context, frame string) (string, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Minute)
	}
	if err := s.conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := io.WriteString(s.conn, frame); err != nil {
		return "", err
	}
	var answer []byte
	for one := make([]byte, 1); ; {
		if _, err := s.conn.Read(one); err != nil {
			return "", err
		}
		if one[0] == 0 {
			return strings.TrimLeft(string(answer), "\n"), nil
		}
		answer = append(answer, one[0])
	}
}

// Close ends the session.
func (s *Session) Close() { _ = s.conn.Close() }
