package mongodb

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// user names an account: users of different databases may bear the same name.
type user struct {
	Name     string `bson:"user"`
	Database string `bson:"db"`
}

// account is a user as the source has it.
type account struct {
	User       user          `bson:",inline"`
	CustomData bson.RawValue `bson:"customData"` // of a stranger it may be anything
}

// mark is what makes a user ours beyond its name, in its customData: our signature of name and
// database. It names no person and no tenant, since whoever may see users sees it.
func (e *Engine) mark(u user, leaseID string) bson.D {
	return bson.D{{Key: "scaivault", Value: bson.D{
		{Key: "mark", Value: signature(e.options.Namer, u)},
		{Key: "installation", Value: e.options.Installation},
		{Key: "lease_id", Value: leaseID},
	}}}
}

func signature(namer *statement.Namer, u user) string {
	return namer.Mark("mongodb:" + u.Database + "." + u.Name)
}

// ours tells whether a user was made by this installation.
func (e *Engine) ours(a account) bool {
	document, _ := a.CustomData.DocumentOK()
	signed, _ := document.Lookup("scaivault", "mark").StringValueOK()
	return e.options.Namer.Ours(a.User.Name) && signed == signature(e.options.Namer, a.User)
}

// find looks users up; those that are not there are left out.
func (s *server) find(ctx context.Context, attempt string, users []user) ([]account, error) {
	found, err := s.usersInfo(ctx, attempt, adminDB, bson.D{{Key: "usersInfo", Value: users}})
	if err != nil {
		return nil, asked(attempt, err)
	}
	return found, nil
}

func (s *server) usersInfo(ctx context.Context, attempt, database string, command bson.D) ([]account, error) {
	answer, err := s.run(ctx, database, command)
	if err != nil {
		return nil, err
	}
	var found struct {
		Users []account `bson:"users"`
	}
	if err := bson.Unmarshal(answer, &found); err != nil {
		return nil, refusedAnswer(attempt, err)
	}
	return found.Users, nil
}

// refusedAnswer is an answer that is none of MongoDB's.
func refusedAnswer(attempt string, err error) *engine.Error {
	return misconfigured(attempt+": the answer is not one of MongoDB", err)
}
