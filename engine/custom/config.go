package custom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/internal/statement"
)

// The runtimes.
const (
	runtimeExec     = "exec"
	runtimeStarlark = "starlark"
)

// Limits of what a configuration, a role and a request carry.
const (
	maxParameters = 16 << 10
	maxScript     = script.MaxScript
	maxHosts      = 32
)

// config is the engine's part of a configuration, as docs/engines/custom.md describes it.
type config struct {
	engine.Settings
	engine.TLS                 // starlark: of the hosts
	Runtime    string          `json:"runtime"`
	Command    string          `json:"command"`    // exec: the name of a program in the operator's folder
	Script     string          `json:"script"`     // starlark: the script itself
	HTTPHosts  []string        `json:"http_hosts"` // starlark: the hosts that the script may speak to
	Parameters json.RawMessage `json:"parameters"`

	names  *statement.NameTemplate // the parsed UsernameTemplate; nil for the usual names
	script *script.Script          // the parsed Script; nil for exec
	hosts  []script.Host           // the parsed HTTPHosts
}

// commandForm keeps the name of a program from being a path, an option or hidden.
var commandForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// parseConfig decodes and checks; after it every optional field has its value. Nothing of the host is
// looked at.
func parseConfig(raw json.RawMessage) (*config, error) {
	c := &config{}
	if err := engine.Decode(raw, c); err != nil {
		return nil, err
	}
	if err := c.CompleteRootless(typeName); err != nil {
		return nil, err
	}
	var err error
	if c.names, err = c.NameTemplate(maxNameBytes); err != nil {
		return nil, err
	}
	isExec, isStarlark := c.Runtime == runtimeExec, c.Runtime == runtimeStarlark
	if err := (engine.Rules{
		{!isExec && !isStarlark, `runtime is none of "exec" and "starlark"`},
		{isExec && !commandForm.MatchString(c.Command), "command is not the name of a program in the operator's folder: letters, digits, ., _ and -, no path"},
		{isExec && (c.Script != "" || c.HTTPHosts != nil), "script and http_hosts are for runtime starlark"},
		{isExec && c.TLS.Given(), "tls_ca_path and tls_cert_path are for runtime starlark"},
		{isStarlark && c.Command != "", "command is for runtime exec"},
		{isStarlark && c.Script == "", "script is missing: give the text of the script"},
		{len(c.Script) > maxScript, "script is longer than 64 KiB"},
		{len(c.HTTPHosts) > maxHosts, "http_hosts are more than 32"},
		{len(c.Parameters) > maxParameters, "parameters are longer than 16 KiB"},
	}).Check(); err != nil {
		return nil, err
	}
	if isStarlark {
		err = c.parseScript()
	}
	return c, err
}

func (c *config) parseScript() (err error) {
	if c.script, err = script.Parse(c.Script); err != nil {
		return engine.Invalid("script: %s", err)
	}
	for _, text := range c.HTTPHosts {
		host, err := script.ParseHost(text)
		if err != nil {
			return engine.Invalid("http_hosts: %.100q: %s", text, err)
		}
		c.hosts = append(c.hosts, host)
	}
	return nil
}

// program names what is run, for people and for the identity of a source that has no other.
func (c *config) program() string {
	if c.Runtime == runtimeExec {
		return "exec:" + c.Command
	}
	return c.Runtime
}

// endpoint is where the root secret goes: to this program, and where its parameters lead it.
func (c *config) endpoint() string {
	hash := sha256.New()
	_ = json.NewEncoder(hash).Encode([]any{c.Script, c.HTTPHosts, c.Parameters}) // a hash takes all that is written
	return c.program() + " " + hex.EncodeToString(hash.Sum(nil)[:16])
}
