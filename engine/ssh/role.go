package ssh

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// The kinds of certificates.
const (
	certUser = "user"
	certHost = "host"
)

const (
	defaultPort   = 22
	defaultKeyID  = "{{lease_id}} {{identity}}"
	maxEntries    = 256 // of one list of a role: a certificate holds at most 256 principals
	maxValueBytes = 1024
)

// What certificates can be restricted by: OpenSSH knows no other critical options that are of use here,
// and refuses a certificate with one that it does not know.
const (
	optionCommand = "force-command"
	optionSource  = "source-address"
	optionVerify  = "verify-required"
)

var (
	userForm      = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	hostForm      = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	extensionForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}(@[a-z0-9.-]{1,64})?$`)
)

// role is the engine's part of a role.
type role struct {
	AllowedUsers      []string          `json:"allowed_users"`
	DefaultUser       string            `json:"default_user"`
	AllowedDomains    []string          `json:"allowed_domains"`
	Extensions        map[string]string `json:"extensions"`
	AllowedExtensions []string          `json:"allowed_extensions"`
	CriticalOptions   map[string]string `json:"critical_options"`
	CertType          string            `json:"cert_type"`
	KeyIDTemplate     string            `json:"key_id_template"`
	GenerateKey       bool              `json:"generate_key"`
	CIDRList          []string          `json:"cidr_list"`
	RequireClientIP   bool              `json:"require_client_ip"`
	Port              int               `json:"port"`

	keyID    *statement.Template
	networks []netip.Prefix // the parsed CIDRList
}

// Bounds implements engine.Bounded: the end stands in the certificate, and a password for one login is
// asked for anew.
func (*role) Bounds() engine.Bounds { return engine.Bounds{Fixed: true} }

// parseRole decodes and checks a role, but for what its engine's mode asks of it.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	for _, check := range []func() error{r.checkNames, r.checkOptions, r.checkNetworks, r.parseKeyID} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *role) checkNames() error {
	for _, user := range r.users() {
		if !userForm.MatchString(user) {
			return engine.Invalid("allowed_users: %.64q is no user name: 1 to 32 characters of a-z 0-9 _ -, beginning with a letter or _; there are no patterns", user)
		}
	}
	for _, domain := range r.AllowedDomains {
		if name := strings.TrimPrefix(domain, "*."); len(name) > 253 || !hostForm.MatchString(name) {
			return engine.Invalid(`allowed_domains: %.64q is no host name in small letters, and no "*." before one`, domain)
		}
	}
	return engine.Rules{
		{r.CertType != "" && r.CertType != certUser && r.CertType != certHost, `cert_type is neither "user" nor "host"`},
		{r.DefaultUser != "" && len(r.AllowedUsers) > 0 && !slices.Contains(r.AllowedUsers, r.DefaultUser), "default_user is not one of allowed_users"},
		{max(len(r.AllowedUsers), len(r.AllowedDomains), len(r.AllowedExtensions), len(r.CIDRList)) > maxEntries, "a list holds more than 256 entries"},
	}.Check()
}

func (r *role) checkOptions() error {
	for name, value := range r.Extensions {
		if !extensionForm.MatchString(name) || !printable(value) {
			return engine.Invalid("extensions: %.64q is no extension, such as permit-pty, or its value is not printable", name)
		}
	}
	for _, name := range r.AllowedExtensions {
		if !extensionForm.MatchString(name) {
			return engine.Invalid("allowed_extensions: %.64q is no extension, such as permit-pty", name)
		}
	}
	for name, value := range r.CriticalOptions {
		switch name {
		case optionCommand:
			if value == "" || !printable(value) {
				return engine.Invalid("critical_options: force-command is empty, not printable or longer than %d bytes", maxValueBytes)
			}
		case optionSource:
			if err := checkSources(value); err != nil {
				return err
			}
		case optionVerify:
			if value != "" {
				return engine.Invalid("critical_options: verify-required takes no value: give it an empty text")
			}
		default:
			return engine.Invalid("critical_options: %.64q is none of force-command, source-address and verify-required", name)
		}
	}
	return nil
}

// checkSources reads addresses and networks as sshd does, with commas between them. It would take a
// network with bits beyond its length for a mistake and refuse every login. A zone is a name of this machine's.
func checkSources(value string) error {
	if len(value) > maxValueBytes {
		return engine.Invalid("critical_options: source-address is longer than %d bytes", maxValueBytes)
	}
	for text := range strings.SplitSeq(value, ",") {
		if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
			continue
		}
		network, err := netip.ParsePrefix(text)
		if err != nil || network != network.Masked() {
			return engine.Invalid("critical_options: source-address holds %.64q, which is neither an address nor a network such as 10.0.0.0/8", text)
		}
	}
	return nil
}

func (r *role) checkNetworks() error {
	for _, text := range r.CIDRList {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return engine.Invalid("cidr_list: %.64q is no network such as 10.0.0.0/8", text)
		}
		r.networks = append(r.networks, network.Masked())
	}
	if r.Port < 0 || r.Port > 65535 {
		return engine.Invalid("port is not one of 1 to 65535")
	}
	return nil
}

// parseKeyID reads the template of key ids, which sshd writes to its log at every login: they must lead
// to the lease.
func (r *role) parseKeyID() (err error) {
	text := r.KeyIDTemplate
	if text == "" {
		text = defaultKeyID
	}
	if r.keyID, err = statement.Parse(text, "lease_id", "identity", "role", "engine"); err != nil {
		return err
	}
	if !r.keyID.Uses("lease_id") || !printable(text) {
		return engine.Invalid("key_id_template lacks {{lease_id}}, by which a login is traced to its lease, or is not printable")
	}
	return nil
}

// users are all accounts that the role is for.
func (r *role) users() []string {
	if len(r.AllowedUsers) == 0 && r.DefaultUser != "" {
		return []string{r.DefaultUser}
	}
	return r.AllowedUsers
}

// allows refuses an account that the role is not for.
func (r *role) allows(user string) error {
	if !slices.Contains(r.users(), user) {
		return refused("username %.64q is not one that the role allows", user)
	}
	return nil
}

func (r *role) host() bool { return r.CertType == certHost }

func (r *role) port() int {
	if r.Port == 0 {
		return defaultPort
	}
	return r.Port
}

// fits refuses a role that says nothing, or something that does not apply, in the engine's mode.
func (r *role) fits(mode string) error {
	users, certificates := len(r.users()) > 0, len(r.Extensions)+len(r.AllowedExtensions)+len(r.CriticalOptions) > 0
	switch {
	case mode == modeOTP:
		return engine.Rules{
			{!users, "allowed_users is missing: name the accounts that passwords are made for"},
			{len(r.networks) == 0, "cidr_list is missing: name the networks of the hosts that passwords are made for"},
			{certificates || r.CertType != "" || len(r.AllowedDomains) > 0 || r.KeyIDTemplate != "" || r.GenerateKey,
				"cert_type, allowed_domains, extensions, allowed_extensions, critical_options, key_id_template and generate_key are for certificates: this engine makes one-time passwords"},
		}.Check()
	case r.host():
		return engine.Rules{
			{len(r.AllowedDomains) == 0, "allowed_domains is missing: name the hosts that certificates are made for"},
			{users, "allowed_users and default_user are not for certificates of hosts"},
			{certificates, "extensions, allowed_extensions and critical_options are not for certificates of hosts"},
			{r.GenerateKey, "generate_key is not for certificates of hosts: a host makes its own key"},
			{len(r.networks) > 0 || r.Port != 0 || r.RequireClientIP, "cidr_list, port and require_client_ip are for one-time passwords"},
		}.Check()
	}
	return engine.Rules{
		{!users, "allowed_users is missing: name the accounts that certificates are made for"},
		{len(r.AllowedDomains) > 0, "allowed_domains is for certificates of hosts (cert_type host)"},
		{len(r.networks) > 0 || r.Port != 0 || r.RequireClientIP, "cidr_list, port and require_client_ip are for one-time passwords: critical_options source-address says from where a certificate is good"},
	}.Check()
}

// printable tells whether a text is short ASCII that shows on a terminal.
func printable(text string) bool {
	return len(text) <= maxValueBytes && strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) < 0
}
