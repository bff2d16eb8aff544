// Package audit reads and proves the audit trail, and carries it to other places.
//
// Entries are written by package access, in the transaction of the change that they record; the
// store gives each its place in its node's chain there. Here are the chain's MAC ([Chain]), the
// questions one may ask of the trail and the proof that it is whole ([Service]), and the sinks
// ([Shipper]).
package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"slices"
	"sync"

	"github.com/scaivault/scaivault/internal/store"
)

// Chain is HMAC-SHA-256 over the previous MAC and the row's message, under a key that only the
// seal opens: so who can write the database, but not open the seal, cannot make an entry, change
// one or leave one out unseen. The previous MAC is empty or of one length, so that no message can
// be read as another.
func Chain(key []byte) store.Chain {
	key = slices.Clone(key)
	macs := sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
	return func(prev, message []byte) []byte {
		mac := macs.Get().(hash.Hash)
		defer macs.Put(mac)
		mac.Reset()
		mac.Write(prev)
		mac.Write(message)
		return mac.Sum(nil)
	}
}
