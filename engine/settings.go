package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/strictjson"
)

// Defaults and limits of settings.
const (
	defaultConnectTimeout   = 5 * time.Second
	defaultOperationTimeout = 15 * time.Second
	defaultConnections      = 4
	maxConnections          = 100
	defaultReconcile        = time.Hour
	minReconcile            = time.Minute

	// MaxOperationTimeout is the most that operation_timeout can be.
	MaxOperationTimeout = 5 * time.Minute
)

// Settings are the fields that every engine's configuration has. An engine embeds them in its own
// configuration, and [TLS] beside them where its source can be reached by TLS.
type Settings struct {
	Plugin              string            `json:"plugin"`
	RootCredentialsPath string            `json:"root_credentials_path"`
	ConnectTimeout      duration.Duration `json:"connect_timeout"`
	OperationTimeout    duration.Duration `json:"operation_timeout"`
	MaxOpenConnections  *int              `json:"max_open_connections"`
	UsernameTemplate    string            `json:"username_template"`
	Reconcile           string            `json:"reconcile"`
	ReconcileInterval   duration.Duration `json:"reconcile_interval"`
	SourceID            string            `json:"source_id"`
}

// Complete gives a default to what was left out, and refuses what cannot be; typeName is the name of
// the engine's [Type]. After it no pointer is nil.
func (s *Settings) Complete(typeName string) error {
	if err := s.CompleteRootless(typeName); err != nil {
		return err
	}
	return Rules{{s.RootCredentialsPath == "", "root_credentials_path is missing: name the secret that holds the root credentials"}}.Check()
}

// CompleteRootless is Complete for an engine that can do without a root secret.
func (s *Settings) CompleteRootless(typeName string) error {
	if s.ConnectTimeout == 0 {
		s.ConnectTimeout = duration.Duration(defaultConnectTimeout)
	}
	if s.OperationTimeout == 0 {
		s.OperationTimeout = duration.Duration(defaultOperationTimeout)
	}
	if s.MaxOpenConnections == nil {
		s.MaxOpenConnections = new(defaultConnections)
	}
	if s.Reconcile == "" {
		s.Reconcile = ReconcileReport
	}
	if s.ReconcileInterval == 0 {
		s.ReconcileInterval = duration.Duration(defaultReconcile)
	}
	return Rules{
		{s.Plugin != "" && s.Plugin != typeName, "plugin is not " + typeName},
		{s.OperationTimeout.Std() > MaxOperationTimeout, "operation_timeout is longer than 5m"},
		{s.ConnectTimeout.Std() > s.OperationTimeout.Std(), "connect_timeout is longer than operation_timeout"},
		{*s.MaxOpenConnections < 2, "max_open_connections is less than 2: one connection is kept for revocation"},
		{*s.MaxOpenConnections > maxConnections, fmt.Sprintf("max_open_connections is more than %d", maxConnections)},
		{!slices.Contains([]string{ReconcileReport, ReconcileRemove, ReconcileOff}, s.Reconcile),
			`reconcile is none of "report", "remove" and "off"`},
		{s.ReconcileInterval.Std() < minReconcile, "reconcile_interval is less than 1m"},
	}.Check()
}

// NameTemplate reads username_template for names of at most limit bytes; it is nil where the usual
// names are wanted.
func (s *Settings) NameTemplate(limit int) (*statement.NameTemplate, error) {
	if s.UsernameTemplate == "" {
		return nil, nil
	}
	return statement.ParseNameTemplate(s.UsernameTemplate, limit)
}

// Config is what the rest of the server must know of completed settings, of the endpoint that the
// root secret is sent to, and of the paths of the other secrets that the engine reads, of which
// empty ones are left out.
func (s *Settings) Config(endpoint string, secretPaths ...string) Config {
	if s.SourceID != "" { // whoever says which server this is could pass another one off as it
		endpoint += " as " + s.SourceID
	}
	return Config{
		RootCredentialsPath: s.RootCredentialsPath,
		SecretPaths:         slices.DeleteFunc(secretPaths, func(path string) bool { return path == "" }),
		Endpoint:            endpoint,
		OperationTimeout:    s.OperationTimeout.Std(),
		ConnectTimeout:      s.ConnectTimeout.Std(),
		MaxOpenConnections:  *s.MaxOpenConnections,
		Reconcile:           s.Reconcile,
		ReconcileInterval:   s.ReconcileInterval.Std(),
	}
}

// Rules are what a document must not be, and what is said where it is.
type Rules []struct {
	Broken bool
	Text   string
}

// Check fails with the first rule that is broken.
func (rs Rules) Check() error {
	for _, r := range rs {
		if r.Broken {
			return Invalid("%s", r.Text)
		}
	}
	return nil
}

// Decode reads an engine's document strictly: what is wrong with it is an invalid_config, but
// durations keep their own code.
func Decode(raw json.RawMessage, into any) error {
	err := strictjson.Decode(raw, into)
	var f *fault.Error
	if errors.As(err, &f) && f.Code == fault.InvalidRequest {
		return Invalid("%s", f.Message)
	}
	return err
}

// Invalid is the error of a configuration or a role that cannot work.
func Invalid(format string, args ...any) error {
	return fault.New(fault.InvalidConfig, format, args...)
}
