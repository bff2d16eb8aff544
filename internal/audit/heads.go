package audit

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/store"
)

// A head says how far a node's chain had come. Each node writes those of all chains into its own,
// every minute, so that a chain that is lost, or whose end is cut off, is named by the others. Since
// a node's own are cut off with the end of its chain, they are kept under the chain's key beside it
// as well; who can roll that back, too, is found out by a sink elsewhere.
type head struct {
	Node string `json:"node"`
	Seq  int64  `json:"seq"`
	MAC  string `json:"mac"` // hexadecimal
}

const (
	headsEvery  = time.Minute
	headsAction = "audit_heads"
	anchorKey   = "audit_anchor/" // + the node that wrote it
)

// anchor is the heads that a node wrote last, as they lie beside the chain.
type anchor struct {
	Heads []head `json:"heads"`
	MAC   []byte `json:"mac"`
}

// Run writes down where the chains stand, every minute in which one has moved, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(headsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.WriteHeads(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("audit: write the heads of the chains", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// WriteHeads writes down where the chains stand, unless that is where they stood at the last time.
func (s *Service) WriteHeads(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	node, stand := s.store.Node(), []head(nil)
	err := s.store.Write(ctx, func(tx store.Tx) (err error) {
		if stand, err = headsOf(tx); err != nil || slices.Equal(stand, s.written) {
			return err
		}
		if err := tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: headsAction, IdentityType: access.TypeSystem,
			IdentityID: "system:audit", SecretPath: Path, Success: true, ExtraData: map[string]any{"heads": stand}}); err != nil {
			return err
		}
		// What was just written is part of where they stand.
		if stand, err = headsOf(tx); err != nil {
			return err
		}
		raw, err := json.Marshal(anchor{Heads: stand, MAC: s.seal(node, stand)})
		if err != nil {
			return err
		}
		return tx.PutMeta(anchorKey+node, raw)
	})
	if err == nil {
		s.written = stand
	}
	return err
}

func headsOf(r store.Reader) ([]head, error) {
	found, err := r.AuditHeads()
	if err != nil {
		return nil, err
	}
	heads := make([]head, 0, len(found))
	for _, h := range found {
		heads = append(heads, head{h.Node, h.LastSeq, hex.EncodeToString(h.LastMAC)})
	}
	return heads, nil
}

// seal binds a node's anchor to the chain's key. No message of the chain begins like this one.
func (s *Service) seal(node string, heads []head) []byte {
	raw, err := json.Marshal(heads)
	if err != nil {
		panic("marshal heads: " + err.Error())
	}
	return s.chain([]byte("scaivault audit anchor v1 "+node+" "), raw)
}

// anchored are the heads kept beside a node's chain; unless ok they were tampered with.
func (s *Service) anchored(r store.Reader, node string) (heads []head, ok bool, err error) {
	raw, err := r.Meta(anchorKey + node)
	if err != nil || raw == nil {
		return nil, true, err
	}
	var a anchor
	legible := json.Unmarshal(raw, &a) == nil
	return a.Heads, legible && hmac.Equal(a.MAC, s.seal(node, a.Heads)), nil
}
