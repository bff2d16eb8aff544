package script

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Limits of one message on the pipe.
const (
	maxToParent = 1 << 20
	maxToChild  = 4 << 20 // the body of an answer, as JSON
)

// job is the first message to the child: what it is to do. It holds no secret.
type job struct {
	Script   string          `json:"script"`
	Function string          `json:"function"` // empty: the top level only
	Input    json.RawMessage `json:"input"`
	Root     []string        `json:"root"`  // names of the root secret's fields: the first of the numbered secrets
	Nonce    string          `json:"nonce"` // marks secrets in JSON; nobody outside can know it
	Steps    uint64          `json:"steps"`
}

// piece is a part of a text: bytes, or a secret by its number.
type piece struct {
	Text   []byte `json:"t,omitempty"`
	Secret *int   `json:"s,omitempty"`
	Quoted bool   `json:"q,omitempty"` // stands within a JSON string
}

// wish is what the child asks of its parent, or the end of its work.
type wish struct {
	Kind string `json:"kind"`

	Name  string    `json:"name,omitempty"`  // of an algorithm or encoding
	Size  int       `json:"size,omitempty"`  // of a random value
	Texts [][]piece `json:"texts,omitempty"` // the arguments

	Method  string             `json:"method,omitempty"`
	URL     string             `json:"url,omitempty"`
	Headers map[string][]piece `json:"headers,omitempty"`
	Auth    [][]piece          `json:"auth,omitempty"` // user and password, or none
	Body    []piece            `json:"body,omitempty"`

	Output  string `json:"output,omitempty"` // JSON with marks in the place of secrets
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Line    int    `json:"line,omitempty"`
	Step    uint64 `json:"step,omitempty"`
}

// Kinds of wishes.
const (
	wishHTTP   = "http"
	wishDigest = "digest"
	wishMAC    = "mac"
	wishBase64 = "base64"
	wishQuery  = "query"
	wishJoin   = "join"
	wishRandom = "random"
	wishPrint  = "print"
	wishDone   = "done"
	wishFailed = "failed"
)

// reply is what the parent answers: a text, a secret's number, or why not.
type reply struct {
	Text     []byte    `json:"t,omitempty"`
	Secret   *int      `json:"s,omitempty"`
	Response *response `json:"r,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// response is an HTTP answer.
type response struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"` // by lower-case name, the first of each
	Body    []byte            `json:"body"`
}

// send writes one message: its length in four bytes, then JSON.
func send(w io.Writer, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)), uint32(len(text)))
	_, err = w.Write(append(frame, text...))
	return err
}

var errTooLong = errors.New("a message on the pipe is too long")

// receive reads one message of at most limit bytes.
func receive(r io.Reader, limit uint32, into any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > limit {
		return errTooLong
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read a message on the pipe: %w", err)
	}
	return nil
}
