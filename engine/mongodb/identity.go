package mongodb

import (
	"context"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/internal/ident"
)

// A server alone has no identity that survives a restart, and that of a set or a cluster can only be
// read with rights that root needs for nothing else. So the source is given one: a role that grants
// nothing, whose name is drawn once and signed by us. It is kept and replicated as the users are, so it
// is lost exactly when they are. Where source_id is configured, the operator's word stands in its place.
const (
	identityPrefix = "scaivault-source-"
	identityKind   = "src"
)

// identify finds the source's identity, or gives it one. Names sort by the time at which they were
// drawn, so that of two nodes that do this at once the earlier one's holds.
func (e *Engine) identify(ctx context.Context, s *server) error {
	marker, err := e.findIdentity(ctx, s)
	if err != nil {
		return err
	}
	if marker == "" {
		drawn := e.options.Namer.Mark(identityPrefix + strings.TrimPrefix(ident.New(identityKind), identityKind+"_"))
		if err := s.makeRole(ctx, grant{drawn, adminDB}, nil, nil); err != nil {
			return sentError("mark the source as known", err)
		}
		if marker, err = e.findIdentity(ctx, s); err != nil {
			return err
		}
	}
	e.marker, e.source = marker, marker
	return nil
}

// findIdentity is the first of the identities that the source bears; empty if it bears none.
func (e *Engine) findIdentity(ctx context.Context, s *server) (string, error) {
	roles, err := s.roles(ctx, "read the source's identity", adminDB)
	first := ""
	for _, r := range roles {
		if strings.HasPrefix(r.Role, identityPrefix) && e.options.Namer.OursMark(r.Role) && (first == "" || r.Role < first) {
			first = r.Role
		}
	}
	return first, err
}

// recognise fails unless the source is the one that the engine was opened on. It tells, by the way,
// which of some roles there are.
func (e *Engine) recognise(ctx context.Context, s *server, attempt string, wanted ...grant) (map[grant]bool, error) {
	if e.marker == "" && len(wanted) == 0 {
		return nil, nil
	}
	asking := wanted
	if e.marker != "" {
		asking = append(asking[:len(asking):len(asking)], grant{e.marker, adminDB})
	}
	there, err := s.exist(ctx, attempt, asking)
	if err != nil {
		return nil, err
	}
	if e.marker != "" && !there[grant{e.marker, adminDB}] {
		return nil, wrongServer(attempt + ": it is not the source that the engine was opened on: it has no role " + e.marker)
	}
	return there, nil
}

// suits refuses what is no source to work on. The driver refuses what is too old.
func (s *server) suits(ctx context.Context) error {
	const attempt = "look at the source"
	switch _, err := s.run(ctx, adminDB, bson.D{{Key: "atlasVersion", Value: 1}}); {
	case err == nil:
		return misconfigured(attempt+": it is MongoDB Atlas, where only Atlas' own API makes users: "+noAtlas, nil)
	case code(err) == 0:
		return asked(attempt, err)
	}
	return nil
}

// hello is what a server says of itself, and of the others.
type hello struct {
	Message   string    `bson:"msg"` // "isdbgrid" of a mongos
	SetName   string    `bson:"setName"`
	Hosts     []string  `bson:"hosts"`
	Passives  []string  `bson:"passives"`
	LocalTime time.Time `bson:"localTime"`
}

func (s *server) hello(ctx context.Context) (h hello, err error) {
	const attempt = "look at the source"
	answer, err := s.run(ctx, adminDB, bson.D{{Key: "hello", Value: 1}})
	if err != nil {
		return h, asked(attempt, err)
	}
	if err := bson.Unmarshal(answer, &h); err != nil {
		return h, refusedAnswer(attempt, err)
	}
	return h, nil
}
