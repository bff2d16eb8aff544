package custom

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/internal/dial"
)

// starlark is the runtime of scripts, which stand in the configuration. Each call has an interpreter of
// its own, in a process of its own: see package script.
type starlark struct {
	runner *script.Runner
}

// newStarlark reads the secrets of its certificates and finds out what the operator permits.
func newStarlark(ctx context.Context, h Host, c *config, o engine.Options, log *slog.Logger) (*starlark, error) {
	for i, host := range c.hosts {
		if !host.Within(h.ScriptHosts) {
			return nil, misconfigured("open the way to "+c.HTTPHosts[i]+": it is not among the hosts that the operator of this server permits with CUSTOM_SCRIPT_HOSTS", nil)
		}
	}
	trust, err := c.TLS.Load(ctx, o)
	if err != nil {
		return nil, err
	}
	outside := &dial.Dialer{
		Policy: dial.Policy{Allowed: h.ScriptNetworks}, Timeout: c.ConnectTimeout.Std(), Resolver: h.Resolver, Through: o.Dial,
	}
	o.Dial = outside.DialContext
	return &starlark{&script.Runner{
		Script: c.script, Root: o.Root, Hosts: c.hosts, Logger: log,
		Client: engine.HTTPClient(o, trust, *c.MaxOpenConnections),
	}}, nil
}

// call implements runtime. A script without check is well when it can be begun.
func (s *starlark) call(ctx context.Context, q *request) (json.RawMessage, time.Duration, error) {
	function := q.Function
	if function == functionCheck && !slices.Contains(s.runner.Script.Functions(), function) {
		function = ""
	}
	input, err := q.fields()
	if err != nil {
		return nil, 0, &failure{codeStart, err}
	}
	result, spent, err := s.runner.Call(ctx, function, input)
	var failed *script.Failure
	if errors.As(err, &failed) {
		return nil, spent, &failure{failed.Code, failed}
	}
	if function == "" || q.Function == functionCheck && string(result) == "{}" {
		return json.RawMessage(`{"ok": true}`), spent, nil
	}
	return result, spent, err
}

// functions implements runtime.
func (s *starlark) functions() []string { return s.runner.Script.Functions() }

// close implements runtime.
func (s *starlark) close() { s.runner.Client.CloseIdleConnections() }

// fields are the request as scripts get it: all of its fields, without the root's.
func (q *request) fields() (json.RawMessage, error) {
	given, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	for _, name := range []string{"lease_id", "name", "role", "expires_at", "ref"} {
		all[name] = json.RawMessage("null")
	}
	if err := json.Unmarshal(given, &all); err != nil {
		return nil, err
	}
	parameters := map[string]json.RawMessage{"engine": json.RawMessage("{}"), "role": json.RawMessage("{}"), "request": json.RawMessage("{}")}
	if err := json.Unmarshal(all["parameters"], &parameters); err != nil {
		return nil, err
	}
	if all["parameters"], err = json.Marshal(parameters); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// left is what a failed issuance left at the source, where the script's own way tells: nothing, if it
// asked for no change.
func left(f *script.Failure) engine.Kind {
	switch f.Code {
	case script.CodeNoContact, script.CodeHTTP, script.CodeTime:
		if !f.Changed {
			return engine.Unreachable
		}
	}
	if f.Changed {
		return engine.Uncertain
	}
	return engine.Refused
}
