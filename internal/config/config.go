// Package config reads the server's configuration from its environment and from flags of the same
// names, and reports everything that is wrong with it at once.
package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/statement"
)

// Config is a valid configuration.
type Config struct {
	DataDir     string
	SealKeyFile string
	WitnessFile string // "" for the default place
	// DatabaseURL names the shared store; "" for the embedded one in DataDir.
	DatabaseURL statement.Secret

	BindAddress    string
	BaseURL        string
	MetricsAddress string // "" for none
	TLSCertFile    string // "" for plain HTTP
	TLSKeyFile     string

	LogLevel  slog.Level
	LogFormat string // "json" or "text"

	RateLimits     access.Limits
	LeaseRetention time.Duration
	AuditRetention time.Duration
	AuditSinks     []string // as audit.OpenSink reads them

	ProgramsDir  string // of the programs that custom engines may run; "" for none
	ProgramsUser string // whom they run as, a name or UID:GID; "" for the server's own user

	ScriptHosts    []string       // that scripts of custom engines may speak to
	ScriptNetworks []netip.Prefix // private ones that these hosts may be in

	AmbientAWS        string   // the source of the host's identity at AWS; "" for none
	AmbientAWSEngines []string // that may use it, as TENANT/ENGINE
}

// Setting is one value that can be set: by environment variable Env, or by flag Flag.
type Setting struct {
	Env, Flag, Default, Doc string
}

// Settings are all settings, in the order in which they are shown.
func Settings() []Setting {
	const year = "2555d" // 7 years of 365 days
	settings := []Setting{
		{Env: "DATA_DIR", Default: "scaivault-data", Doc: "folder of the embedded store, and of this node's own files"},
		{Env: "SEAL_KEY_FILE", Doc: "key file of the seal (default DATA_DIR/seal.key)"},
		{Env: "WITNESS_FILE", Doc: "counter by which an older copy of the store is noticed; keep it off the store's disk (default SEAL_KEY_FILE.witness where that is another folder than DATA_DIR and can be written, else DATA_DIR/witness)"},
		{Env: "KMS_PROVIDER", Default: "file", Doc: "who holds the root key: file"},
		{Env: "DATABASE_URL", Doc: "PostgreSQL database of a store that several nodes share: postgres://user:password@host:5432/database"},
		{Env: "BIND_ADDRESS", Default: "127.0.0.1:8200", Doc: "address and port to listen on"},
		{Env: "BASE_URL", Doc: "how callers reach the server (default from the address)"},
		{Env: "METRICS_ADDRESS", Default: "127.0.0.1:9464", Doc: "address and port of /metrics; off for none"},
		{Env: "TLS_CERT_FILE", Doc: "certificate chain in PEM; read again when it changes"},
		{Env: "TLS_KEY_FILE", Doc: "its private key in PEM"},
		{Env: "TLS_TERMINATED_BY_PROXY", Default: "false", Doc: "true: a proxy speaks TLS, so plain HTTP may leave loopback"},
		{Env: "LOG_LEVEL", Default: "info", Doc: "debug, info, warn or error"},
		{Env: "LOG_FORMAT", Default: "json", Doc: "json or text"},
		{Env: "SCAIVAULT_RATE_LIMITS", Default: "on", Doc: "on, off, or calls per minute such as generate=500,secret_read=0"},
		{Env: "LEASE_RETENTION", Default: "30d", Doc: "how long ended leases are kept"},
		{Env: "AUDIT_RETENTION", Default: year, Doc: "how long audit entries are kept"},
		{Env: "AUDIT_SINKS", Doc: "where audit entries go besides the store, with commas between: file:PATH, stdout, syslog"},
		{Env: "CUSTOM_PROGRAMS_DIR", Doc: "folder of the programs that custom engines may run; only root and the server's user may be able to write to it (default none)"},
		{Env: "CUSTOM_PROGRAMS_USER", Doc: "user that these programs run as, a name or UID:GID; needed where the server runs as root (default the server's own)"},
		{Env: "CUSTOM_SCRIPT_HOSTS", Doc: "hosts that scripts of custom engines may speak to, with commas between: host, host:port or *.example.com (default none)"},
		{Env: "CUSTOM_SCRIPT_NETWORKS", Doc: "loopback and private networks that these hosts may be in, such as 10.1.0.0/16,127.0.0.0/8 (default none: public addresses only)"},
		{Env: "AMBIENT_AWS_SOURCE", Doc: "source of the host's identity at AWS: instance, container or web_identity (default none)"},
		{Env: "AMBIENT_AWS_ENGINES", Doc: "AWS engines that may use that identity, with commas between: tnt_default/cloud, or tnt_default/* for all of a tenant (default none)"},
	}
	for i := range settings {
		settings[i].Flag = strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(settings[i].Env, "SCAIVAULT_")), "_", "-")
	}
	return settings
}

// Problems is everything that is wrong with a configuration.
type Problems []string

// Error lists all of it, a line each.
func (p Problems) Error() string { return "read the configuration:\n  " + strings.Join(p, "\n  ") }

// Load reads the configuration. lookup answers a setting by its Env, and whether it is set; an
// empty value counts as not set. The error is Problems.
func Load(lookup func(env string) (string, bool)) (*Config, error) {
	l := loader{values: map[string]string{}}
	for _, s := range Settings() {
		l.values[s.Env] = s.Default
		if v, ok := lookup(s.Env); ok && v != "" {
			l.values[s.Env] = v
		}
	}
	c := &Config{
		DataDir:        l.values["DATA_DIR"],
		SealKeyFile:    l.values["SEAL_KEY_FILE"],
		WitnessFile:    l.values["WITNESS_FILE"],
		DatabaseURL:    l.database("DATABASE_URL"),
		BindAddress:    l.address("BIND_ADDRESS"),
		BaseURL:        l.url("BASE_URL"),
		TLSCertFile:    l.values["TLS_CERT_FILE"],
		TLSKeyFile:     l.values["TLS_KEY_FILE"],
		LogLevel:       l.level("LOG_LEVEL"),
		LogFormat:      l.oneOf("LOG_FORMAT", "json", "text"),
		RateLimits:     l.limits("SCAIVAULT_RATE_LIMITS"),
		LeaseRetention: l.retention("LEASE_RETENTION"),
		AuditRetention: l.retention("AUDIT_RETENTION"),
		AuditSinks:     list(l.values["AUDIT_SINKS"]),
		ProgramsDir:    l.values["CUSTOM_PROGRAMS_DIR"],
		ProgramsUser:   l.values["CUSTOM_PROGRAMS_USER"],
		ScriptHosts:    list(l.values["CUSTOM_SCRIPT_HOSTS"]),
		ScriptNetworks: l.networks("CUSTOM_SCRIPT_NETWORKS"),

		AmbientAWS:        l.values["AMBIENT_AWS_SOURCE"],
		AmbientAWSEngines: list(l.values["AMBIENT_AWS_ENGINES"]),
	}
	if c.SealKeyFile == "" {
		c.SealKeyFile = filepath.Join(c.DataDir, "seal.key")
	}
	if l.values["METRICS_ADDRESS"] != "off" {
		c.MetricsAddress = l.address("METRICS_ADDRESS")
	}
	l.oneOf("KMS_PROVIDER", "file")
	l.transport(c, l.oneOf("TLS_TERMINATED_BY_PROXY", "true", "false") == "true")
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return c, nil
}

// loader collects what is wrong instead of stopping at it.
type loader struct {
	values   map[string]string
	problems Problems
}

func (l *loader) wrong(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// transport lets plain HTTP out of the machine only where somebody said that a proxy speaks TLS.
func (l *loader) transport(c *Config, proxy bool) {
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		l.wrong("TLS_CERT_FILE, TLS_KEY_FILE: set both or none")
	}
	if c.BindAddress == "" || c.TLSCertFile != "" || proxy || loopback(c.BindAddress) {
		return
	}
	l.wrong("BIND_ADDRESS: plain HTTP is served on loopback only; set TLS_CERT_FILE and TLS_KEY_FILE, or TLS_TERMINATED_BY_PROXY=true")
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (l *loader) address(env string) string {
	v := l.values[env]
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		l.wrong("%s: write an address and a port such as 127.0.0.1:8200", env)
		return ""
	}
	return v
}

func (l *loader) url(env string) string {
	v := l.values[env]
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		l.wrong("%s: write a URL such as https://vault.example.com", env)
		return ""
	}
	return strings.TrimSuffix(v, "/")
}

// database reads a URL that holds a password: it is not repeated.
func (l *loader) database(env string) statement.Secret {
	v := l.values[env]
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Path == "" || u.Fragment != "" {
		l.wrong("%s: write a URL such as postgres://user:password@host:5432/database?sslmode=verify-full", env)
		return ""
	}
	return statement.Secret(v)
}

// list takes apart what stands between commas.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func (l *loader) networks(env string) (networks []netip.Prefix) {
	for _, text := range list(l.values[env]) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			l.wrong("%s: write networks such as 10.1.0.0/16, with commas between", env)
			return nil
		}
		networks = append(networks, p)
	}
	return networks
}

func (l *loader) oneOf(env string, known ...string) string {
	v := l.values[env]
	if !slices.Contains(known, v) {
		l.wrong("%s: write %s", env, strings.Join(known, " or "))
	}
	return v
}

func (l *loader) level(env string) slog.Level {
	switch l.values[env] {
	case "debug":
		return slog.LevelDebug
	case "info":
		return slog.LevelInfo
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	l.wrong("%s: write debug, info, warn or error", env)
	return slog.LevelInfo
}

func (l *loader) retention(env string) time.Duration {
	d, err := duration.Parse(l.values[env])
	if err != nil || d.Std() < 24*time.Hour {
		l.wrong("%s: write a duration from 24h to 3650d", env)
	}
	return d.Std()
}

// limits reads "on", "off", or overrides such as "generate=500,secret_read=0".
func (l *loader) limits(env string) access.Limits {
	v := l.values[env]
	switch v {
	case "on":
		return access.Limits{}
	case "off":
		return access.Limits{Off: true}
	}
	limits := access.Limits{PerMinute: map[access.Category]int{}}
	for part := range strings.SplitSeq(v, ",") {
		name, text, _ := strings.Cut(part, "=")
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || !slices.Contains(categories(), access.Category(name)) {
			l.wrong("%s: write on, off, or calls per minute such as generate=500; known are %s", env, names(categories()))
			break
		}
		limits.PerMinute[access.Category(name)] = int(n)
	}
	return limits
}

func categories() []access.Category {
	return []access.Category{access.CategoryGenerate, access.CategoryDynamicAdmin, access.CategoryLease, access.CategoryVerify,
		access.CategorySecretRead, access.CategorySecretWrite, access.CategoryPolicy, access.CategoryPolicyTest,
		access.CategoryAudit, access.CategoryBatchRead, access.CategoryWhoAmI, access.CategoryAuth,
		access.CategorySystem, access.CategoryUnauthenticated}
}

func names(all []access.Category) string {
	var b strings.Builder
	for i, c := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(c))
	}
	return b.String()
}
