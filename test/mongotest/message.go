package mongotest

import (
	"encoding/binary"
	"errors"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// What a message is (the wire protocol's opcodes).
const (
	opReply = 1
	opQuery = 2004
	opMsg   = 2013
)

const (
	headerSize = 16
	maxMessage = 48 << 20

	moreToCome      = 2 // a flag of OP_MSG: no answer is wanted
	checksumPresent = 1
)

var errMalformed = errors.New("the message is malformed")

// message is one of the wire protocol. Of OP_MSG the document sequences, which only inserts and the
// like have, stay as they are.
type message struct {
	id, answers int32
	op          int32
	flags       uint32
	namespace   string   // of OP_QUERY
	body        bson.Raw // the command, or the answer
	sequences   []byte
}

func readMessage(r io.Reader) (message, error) {
	var m message
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return m, err
	}
	size := int32(binary.LittleEndian.Uint32(header))
	m.id = int32(binary.LittleEndian.Uint32(header[4:]))
	m.answers = int32(binary.LittleEndian.Uint32(header[8:]))
	m.op = int32(binary.LittleEndian.Uint32(header[12:]))
	if size < headerSize+5 || size > maxMessage {
		return m, errMalformed
	}
	rest := make([]byte, size-headerSize)
	if _, err := io.ReadFull(r, rest); err != nil {
		return m, err
	}
	return m, m.parse(rest)
}

func (m *message) parse(rest []byte) error {
	switch m.op {
	case opMsg:
		return m.parseMsg(rest)
	case opQuery: // flags, namespace, skip, return, document
		m.flags = binary.LittleEndian.Uint32(rest)
		for i, b := range rest[4:] {
			if b == 0 {
				m.namespace = string(rest[4 : 4+i])
				break
			}
		}
		start := 4 + len(m.namespace) + 1 + 8
		return m.document(rest, start)
	case opReply: // flags, cursor, starting from, number, documents
		m.flags = binary.LittleEndian.Uint32(rest)
		return m.document(rest, 20)
	}
	return errMalformed
}

func (m *message) document(b []byte, start int) error {
	if len(b) < start+5 {
		return errMalformed
	}
	size := int(binary.LittleEndian.Uint32(b[start:]))
	if size < 5 || len(b) < start+size {
		return errMalformed
	}
	m.body = b[start : start+size]
	return m.body.Validate()
}

// parseMsg reads sections: kind 0 is the one document, kind 1 a sequence.
func (m *message) parseMsg(rest []byte) error {
	m.flags = binary.LittleEndian.Uint32(rest)
	rest = rest[4:]
	if m.flags&checksumPresent != 0 {
		m.flags &^= checksumPresent
		rest = rest[:len(rest)-4]
	}
	for len(rest) >= 5 {
		kind, section := rest[0], rest[1:]
		size := int(binary.LittleEndian.Uint32(section))
		if size < 4 || size > len(section) {
			return errMalformed
		}
		switch {
		case kind == 0 && m.body == nil:
			m.body = section[:size]
		case kind == 1:
			m.sequences = append(m.sequences, rest[:1+size]...)
		default:
			return errMalformed
		}
		rest = section[size:]
	}
	if m.body == nil {
		return errMalformed
	}
	return m.body.Validate()
}

func (m message) encode() []byte {
	rest := binary.LittleEndian.AppendUint32(nil, m.flags)
	switch m.op {
	case opMsg:
		rest = append(append(append(rest, 0), m.body...), m.sequences...)
	case opQuery:
		rest = append(append(rest, m.namespace...), 0)
		rest = binary.LittleEndian.AppendUint32(rest, 0)
		rest = binary.LittleEndian.AppendUint32(rest, 0xffffffff) // one document, and no cursor
		rest = append(rest, m.body...)
	case opReply:
		rest = append(rest, make([]byte, 12)...)
		rest = binary.LittleEndian.AppendUint32(rest, 1)
		rest = append(rest, m.body...)
	}
	header := binary.LittleEndian.AppendUint32(nil, uint32(headerSize+len(rest)))
	for _, field := range []int32{m.id, m.answers, m.op} {
		header = binary.LittleEndian.AppendUint32(header, uint32(field))
	}
	return append(header, rest...)
}

// answer is the answer to a message.
func (m message) answer(body bson.D) message {
	raw, err := bson.Marshal(body)
	if err != nil {
		panic(err) // it is ours
	}
	op := int32(opMsg)
	if m.op == opQuery {
		op = opReply
	}
	return message{id: m.id + 1, answers: m.id, op: op, body: raw}
}
