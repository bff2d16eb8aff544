package ssh

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/strictjson"
)

// Plan implements engine.Engine.
func (e *Engine) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	role, err := e.role(r.Role)
	if err != nil {
		return nil, err
	}
	if err := role.fits(e.config.Mode); err != nil { // the engine's mode was changed since it was saved
		return nil, refused("the role does not fit the engine: %s", fault.From(err).Message)
	}
	if e.config.Mode == modeOTP {
		return e.planOTP(r, role)
	}
	return e.planCertificate(r, role)
}

// planCertificate draws the serial, which is the credential's name: so it is unique in the store, and
// durable before anything is signed.
func (e *Engine) planCertificate(r engine.PlanRequest, role *role) (*engine.Plan, error) {
	wish, err := readCertificateWish(r, role)
	if err != nil {
		return nil, err
	}
	request, err := role.request(wish)
	if err != nil {
		return nil, err
	}
	data := map[string]statement.Secret{}
	if request.key == nil {
		if request.key, err = newKeyPair(data); err != nil {
			return nil, err
		}
	}
	if request.keyID, err = role.keyIDFor(r, e.options.EngineName); err != nil {
		return nil, err
	}
	request.serial, request.end = newSerial(), r.ExpiresAt.Truncate(time.Second)
	data["serial_number"] = statement.Secret(strconv.FormatUint(request.serial, 10))
	return &engine.Plan{
		LeaseID: r.LeaseID, Username: data["serial_number"].Reveal(), Role: role, ExpiresAt: r.ExpiresAt,
		Recipe:  recipe{LeaseID: r.LeaseID, Ends: request.end.Unix(), Serial: request.serial}.encode(),
		Data:    data,
		Private: request,
	}, nil
}

// newSerial draws a serial. sshd takes 0 for none, and looks that up in no list.
func newSerial() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// Issue implements engine.Engine. What it makes is given to nobody before the recipe that says so is kept.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	if err := e.usable(); err != nil {
		return nil, err
	}
	if !time.Now().Before(p.Deadline) || ctx.Err() != nil {
		return nil, refused("issue a credential: the deadline has passed")
	}
	r, err := readRecipe(p.Recipe)
	if err != nil {
		return nil, err
	}
	if request, ok := p.Private.(*request); ok {
		signed, err := e.sign(request)
		if err != nil {
			return nil, err
		}
		p.Data["signed_key"] = statement.Secret(line(signed, ""))
	}
	failpoint.Hit(failpoint.F4)
	r.Issued = true
	return r.encode(), nil
}

// certificateWish is a request's own fields in mode ca.
type certificateWish struct {
	PublicKey   string             `json:"public_key"`
	GenerateKey bool               `json:"generate_key"`
	Username    string             `json:"username"`
	Extensions  *map[string]string `json:"extensions"`
}

func readCertificateWish(r engine.PlanRequest, role *role) (wish certificateWish, err error) {
	if !r.DryRun {
		return wish, readWish(r.Params, &wish)
	}
	key, err := newKeyPair(map[string]statement.Secret{})
	if err != nil {
		return wish, err
	}
	wish.PublicKey = line(key, "")
	if role.host() {
		wish.Username = exampleOf(role.AllowedDomains[0])
	}
	return wish, nil
}

// readWish reads a request's own fields strictly.
func readWish(params json.RawMessage, into any) error {
	if len(params) == 0 {
		return nil
	}
	if err := strictjson.Decode(params, into); err != nil {
		return refused("%s", fault.From(err).Message)
	}
	return nil
}

// keyIDFor is the certificate's key id, which is read in logs.
func (r *role) keyIDFor(p engine.PlanRequest, engineName string) (string, error) {
	return r.keyID.Render(map[string]string{"lease_id": p.LeaseID, "identity": p.Identity, "role": p.RoleName, "engine": engineName},
		func(_, value string) (string, error) { return shown(value), nil })
}

// shown keeps a text from breaking a log's lines, or filling them.
func shown(text string) string {
	const most = 128
	b := []byte(text[:min(len(text), most)])
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// line is a public key, or a certificate, as it stands in a .pub file.
func line(key ssh.PublicKey, comment string) string {
	text := string(ssh.MarshalAuthorizedKey(key))
	text = text[:len(text)-1]
	if comment != "" {
		text += " " + comment
	}
	return text
}
