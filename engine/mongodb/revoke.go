package mongodb

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// batchSize is how many users are ended together.
const batchSize = 100

const revokingUser = "revoke a credential"

// Revoke implements engine.Engine.
func (e *Engine) Revoke(ctx context.Context, r engine.Recipe) (engine.Outcome, error) {
	result := e.RevokeBatch(ctx, []engine.Recipe{r})[0]
	return result.Outcome, result.Err
}

// RevokeBatch implements engine.BatchRevoker. A member that cannot be reached leaves the credential
// half dead: nobody can tell that the member refuses it, and the error says which one it is.
func (e *Engine) RevokeBatch(ctx context.Context, rs []engine.Recipe) []engine.Result {
	results := engine.RevokeEach(rs, batchSize, func(raw engine.Recipe) (user, error) {
		r, err := e.readRecipe(raw)
		return r.user(), err
	}, func(users []user) map[user]engine.Result { return e.end(ctx, users) })
	failpoint.Hit(failpoint.R3)
	return results
}

// end kills users. A user is dropped first, at the primary and by a majority: from then on each member
// that has heard of it refuses new logins and the next command of old ones. Then each member is asked
// whether it has, and what it still executes for the user is ended (law L2).
func (e *Engine) end(ctx context.Context, users []user) map[user]engine.Result {
	failed := map[user]engine.Result{}
	fail := func(err error, users ...user) map[user]engine.Result {
		for _, u := range users {
			failed[u] = engine.Result{Err: plain(err)}
		}
		return failed
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	s, err := e.whole(ctx)
	if err != nil {
		return fail(err, users...)
	}
	if _, err := e.recognise(ctx, s, revokingUser); err != nil {
		return fail(err, users...)
	}
	found, err := s.find(ctx, revokingUser, users)
	if err != nil {
		return fail(err, users...)
	}
	ended := slices.Clone(users)
	var dropped []user
	for _, a := range found {
		if e.ours(a) {
			dropped = append(dropped, a.User)
			continue
		}
		e.log.Warn("a user that bears the name of a credential is not ours: left alone", "username", a.User.Name, "database", a.User.Database)
		ended = slices.DeleteFunc(ended, func(u user) bool { return u == a.User })
	}
	for u, err := range e.drop(ctx, s, dropped) {
		fail(err, u)
		ended = slices.DeleteFunc(ended, func(other user) bool { return other == u })
	}
	failpoint.Hit(failpoint.Disabled)
	if len(ended) == 0 {
		return failed
	}
	if err := e.clear(ctx, s, ended); err != nil {
		return fail(err, ended...)
	}
	return failed
}

// drop drops users at the primary. It gives the errors of those that could not be dropped; one that is
// gone already is dropped.
func (e *Engine) drop(ctx context.Context, s *server, users []user) map[user]error {
	errs := map[user]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	turns := make(chan struct{}, *e.config.MaxOpenConnections)
	for _, u := range users {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			err := s.write(ctx, u.Database, bson.D{{Key: "dropUser", Value: u.Name}})
			if err != nil && code(err) != codeUserNotFound {
				mu.Lock()
				errs[u] = sentError(revokingUser, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errs
}

// clear proves on every member that users are gone, and ends what it still does for them. A member that
// does not answer takes half of the time, so that the others get theirs.
func (e *Engine) clear(ctx context.Context, s *server, users []user) error {
	members, err := e.survey(ctx, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, e.config.OperationTimeout.Std()/2)
	defer cancel()
	return everywhere(revokingUser, members, onEach(members, func(m member) error { return m.clear(ctx, users) }))
}

func (m member) clear(ctx context.Context, users []user) error {
	if m.router { // it would go on for half a minute with what it remembers
		if _, err := m.run(ctx, adminDB, bson.D{{Key: "invalidateUserCache", Value: 1}}); err != nil {
			return asked(revokingUser+": make "+m.address+" forget its users", err)
		}
	}
	err := poll(ctx, revokingUser+": the member "+m.address+" has not heard of it yet", func() (bool, error) {
		left, err := m.find(ctx, revokingUser, users)
		return len(left) == 0, err
	})
	if err != nil {
		return err
	}
	if err := m.killSessions(ctx, users); err != nil {
		return err
	}
	return poll(ctx, revokingUser+": what "+m.address+" does for it was told to end, and goes on", func() (bool, error) {
		left, err := m.running(ctx, users)
		if err != nil || len(left) == 0 {
			return err == nil, err
		}
		return false, m.kill(ctx, left)
	})
}

// killSessions ends the sessions of users with their operations, cursors and transactions. They are
// named by a digest: the command that takes names fails, in many versions, for users that are gone.
func (m member) killSessions(ctx context.Context, users []user) error {
	patterns := make([]bson.D, len(users))
	for i, u := range users {
		digest := sha256.Sum256([]byte(u.Name + "@" + u.Database))
		patterns[i] = bson.D{{Key: "uid", Value: bson.Binary{Data: digest[:]}}}
	}
	_, err := m.run(ctx, adminDB, bson.D{{Key: "killAllSessionsByPattern", Value: patterns}})
	if err != nil {
		return asked(revokingUser+": end its sessions", err)
	}
	return nil
}

// running are the operations that a member executes for users, in a session or without one.
func (m member) running(ctx context.Context, users []user) ([]bson.RawValue, error) {
	const attempt = revokingUser + ": look for its operations"
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = u.Name
	}
	answer, err := m.run(ctx, adminDB, bson.D{
		{Key: "aggregate", Value: 1},
		{Key: "pipeline", Value: []bson.D{
			{{Key: "$currentOp", Value: bson.D{{Key: "allUsers", Value: true}}}},
			{{Key: "$match", Value: bson.D{{Key: "effectiveUsers.user", Value: bson.D{{Key: "$in", Value: names}}}}}},
			{{Key: "$project", Value: bson.D{{Key: "opid", Value: 1}, {Key: "effectiveUsers", Value: 1}}}},
		}},
		{Key: "cursor", Value: bson.D{{Key: "batchSize", Value: int32(1000)}}},
	})
	if err != nil {
		return nil, asked(attempt, err)
	}
	var found struct {
		Cursor struct {
			Batch []struct {
				ID    bson.RawValue `bson:"opid"`
				Users []user        `bson:"effectiveUsers"`
			} `bson:"firstBatch"`
		} `bson:"cursor"`
	}
	if err := bson.Unmarshal(answer, &found); err != nil {
		return nil, refusedAnswer(attempt, err)
	}
	var ids []bson.RawValue
	for _, o := range found.Cursor.Batch {
		if slices.ContainsFunc(o.Users, func(u user) bool { return slices.Contains(users, u) }) {
			ids = append(ids, o.ID)
		}
	}
	return ids, nil
}

func (m member) kill(ctx context.Context, operations []bson.RawValue) error {
	for _, id := range operations {
		if _, err := m.run(ctx, adminDB, bson.D{{Key: "killOp", Value: 1}, {Key: "op", Value: id}}); err != nil {
			return asked(revokingUser+": end its operations", err)
		}
	}
	return nil
}
