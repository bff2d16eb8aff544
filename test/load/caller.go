package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
)

// callPatience bounds one answer; revoking ten thousand is one call.
const callPatience = 3 * time.Minute

// maxRest is how long a connection may rest; the server closes it in the end.
const maxRest = 30 * time.Second

// caller is one client of the server on one connection that is kept open. It
// writes its requests itself: the generator shares the cores with what it
// measures, and http.Transport costs as much as the server's side of a request.
type caller struct {
	addr string
	head string // of every request, after its first line
	conn net.Conn
	in   *bufio.Reader
	used time.Time
	room []byte
}

func (v *vault) caller() *caller {
	return &caller{addr: v.addr, head: "Host: " + v.addr + "\r\nAuthorization: Bearer " + v.token + "\r\nContent-Type: application/json\r\n"}
}

func (c *caller) close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is under way
	}
}

// connect opens the connection, unless it is there and fresh.
func (c *caller) connect(ctx context.Context) (err error) {
	if time.Since(c.used) < maxRest {
		return nil
	}
	c.close()
	var dialer net.Dialer
	if c.conn, err = dialer.DialContext(ctx, "tcp", c.addr); err != nil {
		return err
	}
	c.in = bufio.NewReader(c.conn)
	return nil
}

// do sends a request and reads the whole answer, which is an error when its
// status is not one of those expected. The body is valid until the next call.
func (c *caller) do(ctx context.Context, method, path, body string, want ...int) ([]byte, error) {
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	c.used = time.Now()
	if err := c.conn.SetDeadline(c.used.Add(callPatience)); err != nil {
		return nil, err
	}
	c.room = fmt.Appendf(c.room[:0], "%s %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", method, path, c.head, len(body), body)
	if _, err := c.conn.Write(c.room); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(want, answer.StatusCode) {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return text, ctx.Err()
}

// credentials is the task of asking for one and reading the answer.
func credentials(callers []*caller, engine, role string) task {
	path := "/v1/dynamic/engines/" + engine + "/creds/" + role
	return func(ctx context.Context, caller int) error {
		_, err := callers[caller].do(ctx, "POST", path, "{}", 201)
		return err
	}
}

// clear revokes every lease of a role and waits until all are dead. Where they die later, at a moment that
// is known, the server does not wait for it.
func (c *caller) clear(ctx context.Context, engine, role string) error {
	for deadline := time.Now().Add(callPatience); ; {
		text, err := c.do(ctx, "POST", "/v1/dynamic/leases/revoke-prefix?wait=150s", `{"prefix":"`+engine+"/"+role+`"}`, 200, 202)
		if err != nil {
			return err
		}
		var result api.RevokeResult
		if err := json.Unmarshal(text, &result); err != nil || result.Pending == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("revoke %s/%s: %d are not dead after %s", engine, role, result.Pending, callPatience)
		}
		time.Sleep(time.Second)
	}
}

// issue makes a credential and answers its lease's id.
func (c *caller) issue(ctx context.Context, engine, role string) (id string, err error) {
	text, err := c.do(ctx, "POST", "/v1/dynamic/engines/"+engine+"/creds/"+role, "{}", 201)
	if err != nil {
		return "", err
	}
	var made api.Credential
	err = json.Unmarshal(text, &made)
	return made.LeaseID, err
}
