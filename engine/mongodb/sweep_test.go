package mongodb_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestSweep: fences that nobody needs go when the next one is made; users keep what else they have.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	old := s.namer.Mark("scaivault-fence-" + strconv.FormatInt(time.Now().Add(-25*time.Hour).Unix(), 10) + "-x")
	young := s.namer.Mark("scaivault-fence-" + strconv.FormatInt(time.Now().Add(-23*time.Hour).Unix(), 10) + "-x")
	stranger := "scaivault-fence-1-x_0000000000"
	for _, name := range []string{old, young, stranger} {
		s.server.Do(t, appDB, bson.D{{Key: "createRole", Value: name}, {Key: "privileges", Value: bson.A{}}, {Key: "roles", Value: bson.A{}}})
	}
	t.Cleanup(func() { s.server.Do(t, appDB, bson.D{{Key: "dropRole", Value: stranger}}) })
	e := s.open(t, nil)
	c := issue(t, e, readApp)
	there := s.roles(t, appDB)
	if slices.Contains(there, old) || !slices.Contains(there, young) || !slices.Contains(there, stranger) {
		t.Errorf("after the sweep there are %v", there)
	}
	s.works(t, c)
	revoke(t, e, c.recipe)
}
