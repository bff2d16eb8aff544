// Package leasetest has a source that exists in memory only, and the engine that reaches it. It
// fails in every way that a real one was seen to fail: it refuses, answers nothing before or after
// it did the work, does the work long after its client has gone, makes half of an account, is
// replaced by another server. It keeps every account, so that a test can ask what is left.
//
// It runs inside a testing/synctest bubble as well as outside.
package leasetest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Source is one server with accounts. Safe for concurrent use.
type Source struct {
	mu       sync.Mutex
	fault    func(c Call) Fault
	id       string
	nextOID  int
	accounts map[string]*Account
	taken    []string
	late     []*pending
	touches  []Call
	open     int
	ahead    time.Duration   // of its clock
	lag      time.Duration   // until its users notice that one was killed
	roots    map[string]bool // passwords of root that are accepted; nil: any

	makesRoots bool // by itself
}

// Account is one account at the source.
type Account struct {
	Name     string
	OID      int
	Mark     string // installation that made it; "" for somebody else's
	Usable   bool
	Sessions int
	Until    time.Time
	Stuck    bool // its drop leaves a residue
	Named    bool // the residue is elsewhere, and no account is found: a policy that names it
}

// Call is one call of an engine.
type Call struct {
	Op   string // open, issue, revoke, batch, lookup, renew, settle, list, check, prepare, makeroot, setroot, now
	Name string // of the account; of the node for settle; the password for makeroot and setroot
	Node string
	At   time.Time
}

// Fault is what happens to a call.
type Fault struct {
	Kind FaultKind
	// Delay before the work, or, for Late, before the work is done behind the client's back.
	Delay time.Duration
	// Answer is how long the answer takes after the work is done.
	Answer time.Duration
}

// FaultKind is how a call fails.
type FaultKind int

// The faults. A call that takes longer than its context allows is lost; what becomes of its work
// is what LoseBefore, LoseAfter and Late say.
const (
	None        FaultKind = iota // works, after Delay
	Refuse                       // a definite no
	Unreachable                  // no connection: nothing is left
	LoseBefore                   // the answer is lost, the work not done
	LoseAfter                    // the answer is lost, the work done
	Late                         // the answer is lost, the work done after Delay unless settled before
	Taken                        // issue: somebody else's account of that name exists
	HalfMade                     // issue: the account is made, not usable, the connection lost
	Busy                         // somebody else holds a lock
	Reconnect                    // the connection was lost: root logs in anew before the work
)

// pending is work that the source began and has not finished: its client is gone.
type pending struct {
	node   string
	name   string
	at     time.Time // of the request
	ended  bool
	finish func()
}

// NewSource makes an empty server.
func NewSource(id string) *Source {
	return &Source{id: id, accounts: map[string]*Account{}}
}

// SetFault gives what decides what happens to a call from now on; nil for nothing. It is asked once
// for each call, in no particular order.
func (s *Source) SetFault(fault func(c Call) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Replace puts another server in the place of this one, with other accounts; it returns the former
// accounts, for Restore.
func (s *Source) Replace(id string, accounts map[string]*Account) (formerID string, former map[string]*Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	formerID, former = s.id, s.accounts
	if accounts == nil {
		accounts = map[string]*Account{}
	}
	s.id, s.accounts = id, accounts
	return formerID, former
}

// SetClock puts the source's clock so far ahead of the machine's; what it enforces by time it goes on
// to enforce by the machine's.
func (s *Source) SetClock(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}

// SetLag makes the server say, whenever it is told to kill an account, that it is dead only so much
// later. The account goes when it is told again.
func (s *Source) SetLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = lag
}

// AcceptRoot makes only these passwords of root work for new connections.
func (s *Source) AcceptRoot(passwords ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roots = map[string]bool{}
	for _, p := range passwords {
		s.roots[p] = true
	}
}

// MakeRoots makes the source one that makes the secret part of its root by itself: a planned root
// works at once, beside the present one.
func (s *Source) MakeRoots() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makesRoots = true
}

func (s *Source) makes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.makesRoots
}

// Roots is how many passwords of root are accepted.
func (s *Source) Roots() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.roots)
}

// AcceptsRoot tells whether root can log in with the password now.
func (s *Source) AcceptsRoot(password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roots == nil || s.roots[password]
}

// Accounts are copies of all accounts, in the order of their names.
func (s *Source) Accounts() []Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Account
	for _, name := range slices.Sorted(maps.Keys(s.accounts)) {
		all = append(all, *s.accounts[name])
	}
	return all
}

// Account is a copy of one account, nil when absent.
func (s *Source) Account(name string) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[name]
	if a == nil {
		return nil
	}
	c := *a
	return &c
}

// Taken are the names of accounts that somebody else made, by the fault of that name.
func (s *Source) Taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken)
}

// Put sets an account as it is.
func (s *Source) Put(a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.OID == 0 {
		s.nextOID++
		a.OID = s.nextOID
	}
	s.accounts[a.Name] = &a
}

// Change changes an account in place; it must exist.
func (s *Source) Change(name string, fn func(a *Account)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[name]
	if a == nil {
		panic(fmt.Sprintf("leasetest: there is no account %s", name))
	}
	fn(a)
}

// CanLogin tells whether the account exists and works now, by the source's own rules.
func (s *Source) CanLogin(name string) bool {
	a := s.Account(name)
	return a != nil && a.Usable && (a.Until.IsZero() || time.Now().Before(a.Until))
}

// Touches are the calls so far.
func (s *Source) Touches() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.touches)
}

// Count counts the calls of an operation so far.
func (s *Source) Count(op string) (n int) {
	for _, c := range s.Touches() {
		if c.Op == op {
			n++
		}
	}
	return n
}

// Open counts the engines that are open.
func (s *Source) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// begin notes a call and decides what happens to it.
func (s *Source) begin(c Call) Fault {
	c.At = time.Now()
	s.mu.Lock()
	s.touches = append(s.touches, c)
	fault := s.fault
	s.mu.Unlock()
	if fault == nil {
		return Fault{}
	}
	return fault(c)
}

// behind has the work done after a while, unless it is settled before.
func (s *Source) behind(c Call, delay time.Duration, work func()) {
	p := &pending{node: c.Node, name: c.Name, at: time.Now(), finish: work}
	s.mu.Lock()
	s.late = append(s.late, p)
	s.mu.Unlock()
	time.AfterFunc(delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !p.ended {
			p.ended = true
			p.finish()
		}
	})
}

// settle ends what a node left behind for these names. The caller holds s.mu.
func (s *Source) settle(node string, names map[string]bool) {
	s.late = slices.DeleteFunc(s.late, func(p *pending) bool {
		if p.node == node && names[p.name] {
			p.ended = true
		}
		return p.ended
	})
}
