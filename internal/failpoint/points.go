// Package failpoint names the moments at which the tests kill or delay the server: between each
// two durable steps of an issuance, a revocation, a renewal and a root rotation. Only a program
// built with the tag "failpoint" has them; in every other build [Hit] is an empty function that the
// compiler removes, and nothing can arm it.
package failpoint

// Point is one such moment.
type Point string

// An issuance.
const (
	F1 Point = "F1" // before the intent is durable
	F2 Point = "F2" // the intent is durable, the source is not touched
	F3 Point = "F3" // the first statement is sent, its answer is not read
	F4 Point = "F4" // between two statements at the source
	F5 Point = "F5" // the commit is sent to the source, its answer is not read
	F6 Point = "F6" // the account is made, the confirmation is not committed
	F7 Point = "F7" // the confirmation is committed, not flushed
	F8 Point = "F8" // the answer is not sent
	F9 Point = "F9" // half of the answer is sent
	// IntentOpen is inside the intent's transaction, before its commit.
	IntentOpen Point = "intent-open"
	// Found is in a recovery: what became of an issuance is known, and not written down.
	Found Point = "found"
)

// A revocation.
const (
	Fenced   Point = "fenced"   // the revocation of many is durable, none of them is marked
	R1       Point = "R1"       // marked revoking, the source is not touched
	Disabled Point = "disabled" // it cannot log in any more; sessions, objects and rights are there
	Emptied  Point = "emptied"  // what it had in one database is taken, the account is there
	R2       Point = "R2"       // the drop is sent, its answer is not read
	R3       Point = "R3"       // seen dead at the source
	R4       Point = "R4"       // the lease is closed, its entry is not written: one transaction, open
	R5       Point = "R5"       // closed and recorded
)

// A renewal.
const (
	N1 Point = "N1" // the pending end is durable
	N2 Point = "N2" // the end is moved at the source
	N3 Point = "N3" // the end is set
)

// A root rotation.
const (
	RootPlanned  Point = "root-planned"  // the candidate is made, not durable
	RootKept     Point = "root-kept"     // the candidate is durable, the source not touched
	RootSent     Point = "root-sent"     // the statement is sent, its answer is not read
	RootSet      Point = "root-set"      // the source has it, nobody has logged in with it
	RootProved   Point = "root-proved"   // a new connection has logged in with it
	RootPromoted Point = "root-promoted" // it is the secret's current version
	RootDone     Point = "root-done"     // the connections of the former are closed
)

// Points are all.
func Points() []Point {
	return []Point{F1, F2, F3, F4, F5, F6, F7, F8, F9, IntentOpen, Found,
		Fenced, R1, Disabled, Emptied, R2, R3, R4, R5,
		N1, N2, N3,
		RootPlanned, RootKept, RootSent, RootSet, RootProved, RootPromoted, RootDone}
}
