package mongotest

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// world is what all fronts of one server share, and FerretDB lacks.
type world struct {
	form    form
	members []*Member
	primary *Member // of a set

	mu    sync.Mutex // held for the whole of a command that changes users or roles, as mongod does
	state *state

	operations operations
	lastID     atomic.Int64
}

// state is all users and roles at one moment. What a member that lags has is never changed.
type state struct {
	users map[name]userRecord
	roles map[name]roleRecord
}

// name is that of a user or a role.
type name struct{ Name, Database string }

// userRecord is a user but for its password. One that is dropped and made again is another one.
type userRecord struct {
	id         int64
	roles      []name
	customData bson.Raw
	mechanisms bson.A
}

type roleRecord struct {
	privileges []privilege
	roles      []name
}

func newWorld(f form) *world {
	w := &world{form: f, state: &state{users: map[name]userRecord{}, roles: map[name]roleRecord{}}}
	w.state.users[name{adminName, adminDB}] = userRecord{roles: []name{{"root", adminDB}}}
	w.operations.running = map[int64]*operation{}
	return w
}

// change is for who holds w.mu: what others have seen stays as it was.
func (w *world) change(how func(*state)) {
	next := &state{maps.Clone(w.state.users), maps.Clone(w.state.roles)}
	how(next)
	w.state = next
}

func (w *world) now() *state {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// majority tells whether enough members run to confirm a write.
func (w *world) majority() bool {
	up := 0
	for _, m := range w.members {
		if m.running() {
			up++
		}
	}
	return w.form.set == 0 || 2*up > len(w.members)
}

// cacheLife is how long a mongos remembers a user (userCacheInvalidationIntervalSecs).
const cacheLife = 30 * time.Second
