// Package postgresql makes credentials in PostgreSQL 14 to 18.
//
// A credential is a login role. In the privileges form it is a member of a
// group role that holds the rights, which costs the same however many there
// are; in the statements form the operator's own statements make it. Both are
// killed by the same sequence (revoke.go), which was measured on a root that is
// no superuser.
//
// All SQL goes through pgconn's simple protocol: a message of several
// statements is one transaction and one round trip. The operator's guide is
// docs/engines/postgresql.md.
package postgresql

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	typeName     = "postgresql"
	maxNameBytes = 63 // NAMEDATALEN - 1: longer names are cut with a mere notice
	minVersion   = 140000
)

// Type is the kind of source "postgresql".
type Type struct{}

// Name is "postgresql".
func (Type) Name() string { return typeName }

// ParseConfig implements engine.Type.
func (Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return engine.Config{}, err
	}
	return c.Config(c.target.String(), c.CAPath, c.CertPath), nil
}

// ParseRole implements engine.Type.
func (Type) ParseRole(raw json.RawMessage) (engine.Role, error) {
	r, err := parseRole(raw)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Engine is one open PostgreSQL server.
type Engine struct {
	config  *config
	options engine.Options
	log     *slog.Logger
	pool    *pool
	tlsMode string
	source  string // its identity
	traits  traits
	rights  rights

	mu     sync.Mutex
	root   engine.Login
	groups map[string]*groupState // of each role that was used here, by the role's name

	retiring sync.Mutex // of groups

	wheel    makerWheel
	gatherer gatherer
	late     *engine.LateLooks[droppedRole]
	undead   atomic.Int64 // sessions of dropped accounts that could not be ended
}

// traits are what the source is and what root may do there, as found at Open.
type traits struct {
	version    int
	superuser  bool
	createRole bool
	inherit    bool
	functions  bool     // setup.sql is installed for this root
	makers     []string // roles that make accounts for root, on 16 and later
	signal     bool     // member of pg_signal_backend
	identifier string
}

// Open implements engine.Type.
func (Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	c, err := parseConfig(o.Config)
	if err != nil {
		return nil, misconfigured("read the configuration", err)
	}
	root, err := engine.ReadLogin("root secret", o.Root)
	if err != nil {
		return nil, err
	}
	certs, err := c.TLS.Load(ctx, o)
	if err != nil {
		return nil, err
	}
	connector, err := newConnector(c, o, root, certs)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		config:  c,
		options: o,
		log:     o.Logger,
		tlsMode: c.target.sslmode,
		root:    root,
		groups:  map[string]*groupState{},
	}
	e.late = engine.NewLateLooks(e.lookLate)
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, c.OperationTimeout.Std())
	defer cancel()
	if err := e.meet(ctx, connector); err != nil {
		return nil, err
	}
	connector.limitTransactions(e.traits.version)
	e.pool = newPool(connector, *c.MaxOpenConnections)
	return e, nil
}

// meet makes the first connection and learns who answers and what root may do.
func (e *Engine) meet(ctx context.Context, connector *connector) error {
	first, err := connector.connect(ctx, e.main())
	if err != nil {
		return err
	}
	defer first.close()
	if e.traits, err = readTraits(ctx, first); err != nil {
		return sentError("look at the source", err)
	}
	if e.traits.version < minVersion {
		return misconfigured(fmt.Sprintf("the source is PostgreSQL %d; 14 is the oldest that works", e.traits.version/10000), nil)
	}
	e.source = e.config.SourceID
	if e.source == "" {
		e.source = e.traits.identifier
	}
	if e.source == "" {
		return misconfigured("the source does not tell its identity to root: "+
			`run GRANT EXECUTE ON FUNCTION pg_control_system() TO `+statement.QuoteIdent(e.root.Username)+" there, or set source_id in the configuration", nil)
	}
	if e.traits.functions && e.config.UsernameTemplate != "" && !strings.HasPrefix(e.config.UsernameTemplate, "v_") {
		return misconfigured("the functions of the setup take names that begin with v_: let username_template begin so", nil)
	}
	e.rights = ownRights{}
	if e.traits.functions {
		e.rights = functionRights{}
	}
	return nil
}

func readTraits(ctx context.Context, c *conn) (traits, error) {
	answer, err := c.run(ctx, `SELECT current_setting('server_version_num'), r.rolsuper, r.rolcreaterole, r.rolinherit,
		has_function_privilege('pg_control_system()', 'EXECUTE'),
		`+setupInstalled+`,
		pg_has_role('pg_signal_backend', 'USAGE') OR r.rolsuper,
		(SELECT string_agg(m.rolname, ',' ORDER BY length(m.rolname), m.rolname) FROM pg_roles m WHERE m.rolname ~ '^sv_maker_[0-9]+$' AND m.rolcreaterole AND NOT m.rolsuper AND pg_has_role(m.oid, 'MEMBER'))
		FROM pg_roles r WHERE r.rolname = current_user`)
	if err != nil {
		return traits{}, err
	}
	row := answer.last()[0]
	version, err := strconv.Atoi(row[0])
	if err != nil {
		return traits{}, err
	}
	t := traits{
		version: version, superuser: row[1] == "t", createRole: row[2] == "t", inherit: row[3] == "t",
		functions: row[5] == "t", signal: row[6] == "t",
	}
	if version >= 160000 && row[7] != "" && !t.superuser {
		t.makers = strings.Split(row[7], ",")
	}
	if row[4] == "t" {
		if answer, err = c.run(ctx, "SELECT system_identifier FROM pg_control_system()"); err != nil {
			return traits{}, err
		}
		t.identifier = answer.one()
	}
	return t, nil
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.source }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.late.Close()
	e.pool.close()
}

// operation bounds one operation by the engine's own time.
func (e *Engine) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.OperationTimeout.Std())
}

// main is the database that connection_url names, where accounts are made.
func (e *Engine) main() place { return place{database: e.config.target.database} }

// mainOf is where the recipe's account is made and ended: as its maker.
func (e *Engine) mainOf(r recipe) place { return place{e.config.target.database, r.Maker} }

var (
	_ engine.Type         = Type{}
	_ engine.Engine       = (*Engine)(nil)
	_ engine.Renewer      = (*Engine)(nil)
	_ engine.RolePreparer = (*Engine)(nil)
	_ engine.Settler      = (*Engine)(nil)
	_ engine.BatchRevoker = (*Engine)(nil)
	_ engine.Lister       = (*Engine)(nil)
	_ engine.RootRotator  = (*Engine)(nil)
	_ engine.Clock        = (*Engine)(nil)
)
