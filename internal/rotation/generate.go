package rotation

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// The generators of the contract.
const (
	generatorRandom   = "random"
	generatorHex      = "hex"
	generatorUUID     = "uuid"
	generatorTemplate = "template"
	generatorRSA      = "rsa_keypair"
	generatorEC       = "ec_keypair"
	generatorSSH      = "ssh_keypair"
	generatorBcrypt   = "bcrypt_hash"
	generatorStatic   = "static"
)

// generator makes values. takes names its parameters; a check tells what is wrong with them.
type generator struct {
	takes []string
	check func(p *api.GeneratorParameters) (wrong []string)
	make  func(p api.GeneratorParameters, static string) (generated, error)
}

// generated is one value for a field that is chosen elsewhere, or several with names of their own.
type generated struct {
	value statement.Secret
	named map[string]statement.Secret
}

// fields are the fields of a secret's data, the one value under the name given.
func (g generated) fields(field string) map[string]statement.Secret {
	all := maps.Clone(g.named)
	if all == nil {
		all = map[string]statement.Secret{}
	}
	if g.value != "" {
		all[field] = g.value
	}
	return all
}

func generators() map[string]generator {
	return map[string]generator{
		generatorRandom:   {[]string{"field", "length", "classes", "symbols"}, checkPassword, randomValue},
		generatorHex:      {[]string{"field", "bytes"}, checkHex, hexValue},
		generatorUUID:     {[]string{"field"}, nil, uuidValue},
		generatorTemplate: {[]string{"field", "template"}, checkTemplate, templateValue},
		generatorRSA:      {[]string{"bits"}, checkBits, rsaKeys},
		generatorEC:       {[]string{"curve"}, checkCurve, ecKeys},
		generatorSSH:      {[]string{"key_type", "bits", "comment"}, checkSSH, sshKeys},
		generatorBcrypt:   {[]string{"field", "length", "classes", "symbols", "cost"}, checkBcrypt, bcryptValue},
		generatorStatic:   {[]string{"field", "value"}, nil, staticValue},
	}
}

const maxField = 256

// check names everything that is wrong with the parameters. held tells that the value of a static one
// is known already.
func check(name string, p *api.GeneratorParameters, held bool) error {
	g, ok := generators()[name]
	if !ok {
		return validation([]string{"generator: one of " + strings.Join(slices.Sorted(maps.Keys(generators())), ", ")})
	}
	var wrong []string
	for _, given := range parametersGiven(p) {
		if !slices.Contains(g.takes, given) {
			wrong = append(wrong, "parameters."+given+": the generator "+name+" does not take it")
		}
	}
	if len(p.Field) > maxField {
		wrong = append(wrong, "parameters.field: the name of a field has 1 to 256 bytes")
	}
	if name == generatorStatic && (p.Value == "" && !held || len(p.Value) > maxValue) {
		wrong = append(wrong, "parameters.value: 1 to 65536 bytes")
	}
	if g.check != nil && wrong == nil {
		wrong = g.check(p)
	}
	if len(wrong) > 0 {
		return validation(wrong)
	}
	return nil
}

// validation names all that is wrong at once; none of it holds a value.
func validation(wrong []string) error {
	return fault.New(fault.ValidationError, "read the generator: %s", strings.Join(wrong, "; ")).With("fields", wrong)
}

// maxValue bounds a static value.
const maxValue = 64 << 10

// parametersGiven are the names of the parameters that are set.
func parametersGiven(p *api.GeneratorParameters) []string {
	raw, err := json.Marshal(p)
	var set map[string]json.RawMessage
	if err != nil || json.Unmarshal(raw, &set) != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(set))
}

func generate(name string, p api.GeneratorParameters, static string) (generated, error) {
	g, ok := generators()[name]
	if !ok {
		return generated{}, fault.New(fault.InternalError, "generate a value: the generator is not known")
	}
	return g.make(p, static)
}

// knownFields are what the field of a password or key is usually called.
var knownFields = []string{"password", "value", "secret", "token", "key", "api_key"}

func orValue(field string) string {
	if field == "" {
		return "value"
	}
	return field
}

// fieldOf is the field that one value goes to: the only one, or the one with a usual name.
func fieldOf(data map[string]json.RawMessage) (string, error) {
	var found []string
	for _, name := range knownFields {
		if _, ok := data[name]; ok {
			found = append(found, name)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) == 0 && len(data) == 1 {
		for name := range data {
			return name, nil
		}
	}
	return "", fault.New(fault.InvalidRequest,
		"generate a value: which field of the secret gets it is not clear; name it in the parameter field of a secret policy")
}

// Bounds of generated passwords.
const (
	minLength     = 8
	maxLength     = 1024
	defaultLength = 32
	bcryptLength  = 72 // bcrypt reads no further
)

var classes = map[string]string{"upper": statement.Upper, "lower": statement.Lower, "digits": statement.Digits, "symbols": ""}

func checkPassword(p *api.GeneratorParameters) []string { return passwordWrong(p, maxLength) }

func passwordWrong(p *api.GeneratorParameters, longest int) (wrong []string) {
	if p.Length != nil && (*p.Length < minLength || *p.Length > longest) {
		wrong = append(wrong, "parameters.length: "+between(minLength, longest))
	}
	seen := map[string]bool{}
	for _, c := range p.Classes {
		if _, ok := classes[c]; !ok || seen[c] {
			wrong = append(wrong, "parameters.classes: each of upper, lower, digits and symbols at most once")
			break
		}
		seen[c] = true
	}
	if len(seen) == 1 && seen["symbols"] {
		wrong = append(wrong, "parameters.classes: symbols alone are too few")
	}
	for i, r := range p.Symbols {
		if r <= ' ' || r > '~' || strings.ContainsRune(p.Symbols[:i], r) ||
			strings.ContainsRune(statement.Upper+statement.Lower+statement.Digits, r) {
			wrong = append(wrong, "parameters.symbols: printable ASCII but letters, digits and the space, each once")
			break
		}
	}
	return wrong
}

// password draws with at least one character of each class; every one that the parameters allow is
// equally likely.
func password(p api.GeneratorParameters) (string, error) {
	length, names := defaultLength, p.Classes
	if p.Length != nil {
		length = *p.Length
	}
	if len(names) == 0 {
		names = []string{"upper", "lower", "digits", "symbols"}
	}
	sets := make([]string, len(names))
	for i, name := range names {
		if sets[i] = classes[name]; name == "symbols" {
			if sets[i] = p.Symbols; p.Symbols == "" {
				sets[i] = statement.Symbols
			}
		}
	}
	for {
		text, err := draw(strings.Join(sets, ""), length)
		if err != nil || !slices.ContainsFunc(sets, func(set string) bool { return !strings.ContainsAny(text, set) }) {
			return text, err
		}
	}
}

// draw draws characters, each equally likely.
func draw(alphabet string, n int) (string, error) {
	most := big.NewInt(int64(len(alphabet)))
	text := make([]byte, n)
	for i := range text {
		k, err := rand.Int(rand.Reader, most)
		if err != nil {
			return "", err
		}
		text[i] = alphabet[k.Int64()]
	}
	return string(text), nil
}

func randomValue(p api.GeneratorParameters, _ string) (generated, error) {
	text, err := password(p)
	return generated{value: statement.Secret(text)}, err
}

func checkHex(p *api.GeneratorParameters) []string {
	if p.Bytes != nil && (*p.Bytes < 8 || *p.Bytes > 512) {
		return []string{"parameters.bytes: " + between(8, 512)}
	}
	return nil
}

func hexValue(p api.GeneratorParameters, _ string) (generated, error) {
	n := 32
	if p.Bytes != nil {
		n = *p.Bytes
	}
	text, err := randomHex(n)
	return generated{value: statement.Secret(text)}, err
}

func randomHex(bytes int) (string, error) {
	raw := make([]byte, bytes)
	_, err := rand.Read(raw)
	return hex.EncodeToString(raw), err
}

func uuidValue(api.GeneratorParameters, string) (generated, error) {
	text, err := uuid()
	return generated{value: statement.Secret(text)}, err
}

// uuid is a random one, version 4 of RFC 9562.
func uuid() (string, error) {
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	text := hex.EncodeToString(raw)
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-"), nil
}

func checkBcrypt(p *api.GeneratorParameters) []string {
	wrong := passwordWrong(p, bcryptLength)
	if p.Cost != nil && (*p.Cost < 10 || *p.Cost > 14) {
		wrong = append(wrong, "parameters.cost: "+between(10, 14))
	}
	return wrong
}

// bcryptValue is a password in the field chosen, and its hash in the field password_hash.
func bcryptValue(p api.GeneratorParameters, _ string) (generated, error) {
	cost := 12
	if p.Cost != nil {
		cost = *p.Cost
	}
	text, err := password(p)
	if err != nil {
		return generated{}, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(text), cost)
	return generated{value: statement.Secret(text), named: map[string]statement.Secret{"password_hash": statement.Secret(hash)}}, err
}

func staticValue(_ api.GeneratorParameters, static string) (generated, error) {
	return generated{value: statement.Secret(static)}, nil
}
