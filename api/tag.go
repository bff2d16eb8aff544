package api

import (
	"crypto/sha256"
	"encoding/hex"
)

// EntityTag is the ETag of a document that is answered as it is: who holds a copy can tell it without
// having kept it.
func EntityTag(document []byte) string {
	sum := sha256.Sum256(document)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}
