package ssh

import (
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/duration"
)

// What the engine makes.
const (
	modeCA  = "ca"  // certificates of users and hosts
	modeOTP = "otp" // passwords that are good for one login
)

// How often hosts fetch the list of revoked certificates, at the latest.
const (
	defaultKRLMaxAge = 5 * time.Minute
	maxKRLMaxAge     = 24 * time.Hour
)

// config is the engine's part of a configuration, as docs/engines/ssh.md describes it.
type config struct {
	engine.Settings
	Mode      string            `json:"mode"`
	KeyType   string            `json:"key_type"`
	KRLMaxAge duration.Duration `json:"krl_max_age"`
}

// parseConfig decodes and checks; after it every optional field has its value.
func parseConfig(raw json.RawMessage) (*config, error) {
	c := &config{}
	if err := engine.Decode(raw, c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.Reconcile = engine.ReconcileOff
	if err := c.CompleteRootless(typeName); err != nil {
		return nil, err
	}
	if c.Mode == "" {
		c.Mode = modeCA
	}
	if c.Mode == modeCA && c.KeyType == "" {
		c.KeyType = keyEd25519
	}
	if c.Mode == modeCA && c.KRLMaxAge == 0 {
		c.KRLMaxAge = duration.Duration(defaultKRLMaxAge)
	}
	return c, nil
}

func (c *config) check() error {
	otp := c.Mode == modeOTP
	return engine.Rules{
		{c.Mode != "" && c.Mode != modeCA && !otp, `mode is neither "ca" nor "otp"`},
		{otp && c.RootCredentialsPath != "", "root_credentials_path is for mode ca: one-time passwords need no key"},
		{otp && c.KeyType != "", "key_type is for mode ca: one-time passwords need no key"},
		{otp && c.KRLMaxAge != 0, "krl_max_age is for mode ca: a one-time password that is revoked is dead at once"},
		{!otp && c.RootCredentialsPath == "", "root_credentials_path is missing: name the secret that holds the key of the CA"},
		{c.KeyType != "" && generators[c.KeyType] == nil, "key_type is none of " + keyTypes()},
		{c.KRLMaxAge.Std() > maxKRLMaxAge, "krl_max_age is longer than 24h"},
		{c.UsernameTemplate != "", "username_template is not for SSH: a role's key_id_template gives the key ids of certificates"},
		{c.Reconcile != "" && c.Reconcile != engine.ReconcileOff, "reconcile is not for SSH: no source keeps its credentials"},
		{c.SourceID != "", "source_id is not for SSH: there is no server behind the engine"},
	}.Check()
}
