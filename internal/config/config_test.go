package config_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/config"
)

func load(values map[string]string) (*config.Config, error) {
	return config.Load(func(env string) (string, bool) { v, ok := values[env]; return v, ok })
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.BindAddress != "127.0.0.1:8200" || c.MetricsAddress != "127.0.0.1:9464" || c.LogLevel != slog.LevelInfo ||
		c.SealKeyFile != c.DataDir+"/seal.key" || c.LeaseRetention != 30*24*time.Hour || c.AuditRetention != 7*365*24*time.Hour ||
		c.RateLimits.Off {
		t.Errorf("defaults: %+v", c)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	c, err := load(map[string]string{"BIND_ADDRESS": "0.0.0.0:443", "TLS_CERT_FILE": "c", "TLS_KEY_FILE": "k", "DATA_DIR": "/d",
		"SEAL_KEY_FILE": "/k/seal.key", "METRICS_ADDRESS": "off", "LOG_LEVEL": "debug", "LOG_FORMAT": "text",
		"BASE_URL": "https://vault.example.com/", "SCAIVAULT_RATE_LIMITS": "generate=500,secret_read=0", "LEASE_RETENTION": "7d"})
	if err != nil {
		t.Fatal(err)
	}
	if c.MetricsAddress != "" || c.BaseURL != "https://vault.example.com" || c.LogLevel != slog.LevelDebug ||
		c.RateLimits.PerMinute[access.CategoryGenerate] != 500 || c.LeaseRetention != 7*24*time.Hour || c.SealKeyFile != "/k/seal.key" {
		t.Errorf("values: %+v", c)
	}
	const database = "postgres://u:canary@db.example.com:5432/x?sslmode=verify-full"
	if c, err = load(map[string]string{"DATABASE_URL": database}); err != nil || c.DatabaseURL.Reveal() != database ||
		strings.Contains(fmt.Sprintf("%+v", c), "canary") {
		t.Errorf("database: %+v, %v", c, err)
	}
	c, err = load(map[string]string{"SCAIVAULT_RATE_LIMITS": "secret_read=0"})
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := c.RateLimits.PerMinute[access.CategorySecretRead]; n != 0 || !ok {
		t.Error("a limit of 0 was lost")
	}
	if c, err = load(map[string]string{"SCAIVAULT_RATE_LIMITS": "off"}); err != nil || !c.RateLimits.Off {
		t.Errorf("limits off: %+v, %v", c, err)
	}
	if _, err := load(map[string]string{"BIND_ADDRESS": "0.0.0.0:80", "TLS_TERMINATED_BY_PROXY": "true"}); err != nil {
		t.Errorf("behind a proxy: %v", err)
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	const password = "canary-password"
	bad := map[string]string{
		"BIND_ADDRESS": "here", "METRICS_ADDRESS": "127.0.0.1:99999", "BASE_URL": "ftp://" + password + "@x",
		"DATABASE_URL": "mysql://u:" + password + "@db/x", "KMS_PROVIDER": "aws", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml",
		"TLS_CERT_FILE": "c", "SCAIVAULT_RATE_LIMITS": "everything=1", "LEASE_RETENTION": "1h", "AUDIT_RETENTION": "-1d",
		"TLS_TERMINATED_BY_PROXY": "maybe",
	}
	_, err := load(bad)
	var problems config.Problems
	if !errors.As(err, &problems) {
		t.Fatalf("load: %v", err)
	}
	for env := range bad {
		if !strings.Contains(err.Error(), env+":") && !strings.Contains(err.Error(), env+",") {
			t.Errorf("%s is not reported: %v", env, err)
		}
	}
	if len(problems) != len(bad) {
		t.Errorf("%d problems, want %d: %v", len(problems), len(bad), err)
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("a password is repeated: %v", err)
	}
	if _, err := load(map[string]string{"BIND_ADDRESS": "0.0.0.0:80"}); err == nil {
		t.Error("plain HTTP outside loopback was accepted")
	}
}

func TestFlagsHaveTheSameNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range config.Settings() {
		want := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.Env, "SCAIVAULT_")), "_", "-")
		if s.Flag != want || s.Doc == "" || seen[s.Flag] {
			t.Errorf("%s: flag %q, doc %q", s.Env, s.Flag, s.Doc)
		}
		seen[s.Flag] = true
	}
}
