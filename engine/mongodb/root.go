package mongodb

import (
	"context"
	"maps"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const rotatingRoot = "rotate the root credentials"

// PlanRoot implements engine.RootRotator. The user keeps its name.
func (e *Engine) PlanRoot(context.Context) (map[string]statement.Secret, error) {
	candidate := maps.Clone(e.options.Root)
	candidate["password"] = statement.Password(nil)
	return candidate, nil
}

// SetRoot implements engine.RootRotator. It can be repeated, also when the source took the candidate
// and the answer was lost: then a new connection logs in with it, and nothing is left to do but to use
// it. Connections that are open stay logged in, so that nothing under way fails.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	next, err := engine.ReadLogin("root candidate", candidate)
	if err != nil {
		return err
	}
	e.mu.Lock()
	current := e.root
	e.mu.Unlock()
	if next.Username != current.Username {
		return misconfigured(rotatingRoot+": the user keeps its name; only its password changes", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	proof, err := e.prove(ctx, next)
	if engine.KindOf(err) == engine.Misconfigured { // it is refused: nobody has set it yet
		if err := e.setPassword(ctx, next); err != nil {
			return plain(err)
		}
		failpoint.Hit(failpoint.RootSet)
		if proof, err = e.prove(ctx, next); err != nil {
			return uncertain(rotatingRoot+": the source took the new password and refuses it", err)
		}
	}
	if err != nil {
		return plain(err)
	}
	failpoint.Hit(failpoint.RootProved)
	return e.adopt(next, proof)
}

// setPassword changes the password with a majority.
func (e *Engine) setPassword(ctx context.Context, next engine.Login) error {
	s, err := e.whole(ctx)
	if err != nil {
		return err
	}
	if _, err := e.recognise(ctx, s, rotatingRoot); err != nil {
		return err
	}
	p, err := e.connector.place(ctx)
	if err != nil {
		return err
	}
	err = s.write(ctx, p.authSource, bson.D{
		{Key: "updateUser", Value: next.Username},
		{Key: "pwd", Value: next.Password.Reveal()},
		{Key: "mechanisms", Value: []string{"SCRAM-SHA-256"}},
	})
	if err != nil {
		return sentError(rotatingRoot, err)
	}
	return nil
}

// prove logs in on a new connection, and gives it.
func (e *Engine) prove(ctx context.Context, as engine.Login) (*server, error) {
	s, err := e.connector.whole(ctx, as)
	if err != nil {
		return nil, err
	}
	if _, err := s.hello(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// adopt uses the new login from now on. What is under way ends on the former connections.
func (e *Engine) adopt(next engine.Login, s *server) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		s.close()
		return errClosed
	}
	former := append(slices.Collect(maps.Values(e.members)), e.main)
	e.root, e.main, e.members = next, s, map[string]*server{}
	e.mu.Unlock()
	for _, f := range former {
		f.leave()
	}
	return nil
}
