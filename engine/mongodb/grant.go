package mongodb

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// grant names a role: roles of different databases may bear the same name.
type grant struct {
	Role     string `bson:"role" json:"role"`
	Database string `bson:"db" json:"db"`
}

func (g grant) String() string { return g.Role + "@" + g.Database }

// roles are those of a database that somebody made.
func (s *server) roles(ctx context.Context, attempt, database string) ([]grant, error) {
	return s.rolesInfo(ctx, attempt, database, 1)
}

// exist tells which of some roles there are, those that MongoDB brings included.
func (s *server) exist(ctx context.Context, attempt string, wanted []grant) (map[grant]bool, error) {
	found, err := s.rolesInfo(ctx, attempt, adminDB, wanted)
	there := map[grant]bool{}
	for _, g := range found {
		there[g] = true
	}
	return there, err
}

func (s *server) rolesInfo(ctx context.Context, attempt, database string, which any) ([]grant, error) {
	answer, err := s.run(ctx, database, bson.D{{Key: "rolesInfo", Value: which}})
	if err != nil {
		return nil, asked(attempt, err)
	}
	var found struct {
		Roles []grant `bson:"roles"`
	}
	if err := bson.Unmarshal(answer, &found); err != nil {
		return nil, refusedAnswer(attempt, err)
	}
	return found.Roles, nil
}

// makeRole makes a role, which may be there already.
func (s *server) makeRole(ctx context.Context, g grant, privileges []privilege, inherited []grant) error {
	err := s.write(ctx, g.Database, bson.D{
		{Key: "createRole", Value: g.Role},
		{Key: "privileges", Value: orEmpty(privileges)},
		{Key: "roles", Value: orEmpty(inherited)},
	})
	if code(err) == codeRoleExists {
		return nil
	}
	return err
}

// dropRole drops a role, which may be gone already. Whoever had it loses it.
func (s *server) dropRole(ctx context.Context, g grant) error {
	err := s.write(ctx, g.Database, bson.D{{Key: "dropRole", Value: g.Role}})
	if code(err) == codeRoleNotFound {
		return nil
	}
	return err
}

// orEmpty is a list that is there: MongoDB takes no null for one.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
