package audit

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/store"
)

const verifyChunk = 1000

// Verify recomputes the chains of all nodes and names, for each, the first entry that is not what
// the server wrote: altered, moved, renumbered, left out, or cut off at the end. It reads the whole
// trail, in pieces that hold nobody up.
func (s *Service) Verify(ctx context.Context, c *access.Caller) (*api.AuditVerification, error) {
	pass, err := s.admit(ctx, c, "read")
	if err != nil {
		return nil, err
	}
	var answer *api.AuditVerification
	select {
	case s.verifying <- struct{}{}: // it reads whole chains: one at a time is all that others should feel
		answer, err = s.Check(ctx)
		<-s.verifying
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		pass.Set("ok", answer.OK)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

// Check is Verify for who has the host in hand.
func (s *Service) Check(ctx context.Context) (*api.AuditVerification, error) {
	v := verification{service: s, claims: map[string]head{}}
	var chains []store.AuditHead
	if err := s.store.Read(ctx, func(r store.Reader) (err error) {
		chains, err = r.AuditHeads()
		return err
	}); err != nil {
		return nil, err
	}
	for _, h := range chains {
		if err := v.walk(ctx, h); err != nil {
			return nil, err
		}
	}
	if err := v.anchors(ctx); err != nil {
		return nil, err
	}
	if err := v.claimed(ctx); err != nil {
		return nil, err
	}
	answer := &api.AuditVerification{OK: true, Chains: v.reports}
	for _, r := range v.reports {
		answer.OK = answer.OK && r.OK
	}
	return answer, nil
}

type verification struct {
	service *Service
	reports []api.ChainReport
	claims  map[string]head // the farthest that trustworthy entries say each chain had come
}

// walk recomputes one chain from its kept beginning to where it stood when the walk began.
func (v *verification) walk(ctx context.Context, h store.AuditHead) error {
	report := api.ChainReport{Node: h.Node, FirstSeq: h.FirstSeq, LastSeq: h.LastSeq, OK: true}
	prev, next := h.Base, h.FirstSeq
	for next <= h.LastSeq && report.OK {
		var rows []*store.AuditRow
		if err := v.service.store.Read(ctx, func(r store.Reader) (err error) {
			rows, err = r.AuditChain(h.Node, next, verifyChunk)
			return err
		}); err != nil {
			return err
		}
		if len(rows) == 0 {
			broken(&report, fmt.Sprintf("#%d", next), "the entries from here on are missing")
			break
		}
		for _, row := range rows {
			if row.Seq > h.LastSeq {
				next = row.Seq
				break
			}
			if row.Seq != next {
				broken(&report, fmt.Sprintf("#%d", next), fmt.Sprintf("the entries before #%d are missing", row.Seq))
				break
			}
			if !hmac.Equal(row.MAC, v.service.chain(prev, store.AuditMessage(row))) {
				broken(&report, name(row), fmt.Sprintf("entry #%d was altered or moved, or what came before it was removed", row.Seq))
				break
			}
			v.note(row)
			report.Entries++
			prev, next = row.MAC, next+1
		}
	}
	v.reports = append(v.reports, report)
	return nil
}

// name is what an entry calls itself, or its number where it is not legible.
func name(row *store.AuditRow) string {
	if row.Entry.ID == "" || len(row.Entry.ID) > 64 {
		return fmt.Sprintf("#%d", row.Seq)
	}
	return row.Entry.ID
}

func broken(r *api.ChainReport, first, problem string) {
	if r.OK {
		r.OK, r.FirstBroken, r.Problem = false, first, problem
	}
}

// note keeps what a verified entry says about where the chains stood.
func (v *verification) note(row *store.AuditRow) {
	if row.Entry.Action != headsAction {
		return
	}
	var e struct {
		ExtraData struct {
			Heads []head `json:"heads"`
		} `json:"extra_data"`
	}
	if json.Unmarshal(row.Raw, &e) == nil {
		v.claim(e.ExtraData.Heads)
	}
}

func (v *verification) claim(heads []head) {
	for _, h := range heads {
		if h.Seq > v.claims[h.Node].Seq {
			v.claims[h.Node] = h
		}
	}
}

// anchors reads the heads that each chain's node keeps beside it.
func (v *verification) anchors(ctx context.Context) error {
	nodes := []string{v.service.store.Node()}
	for _, r := range v.reports {
		if !slices.Contains(nodes, r.Node) {
			nodes = append(nodes, r.Node)
		}
	}
	return v.service.store.Read(ctx, func(r store.Reader) error {
		for _, node := range nodes {
			heads, ok, err := v.service.anchored(r, node)
			if err != nil {
				return err
			}
			if !ok {
				broken(v.report(node), "", "the heads kept beside the chain were tampered with")
				continue
			}
			v.claim(heads)
		}
		return nil
	})
}

// claimed holds each chain against how far it is known to have come.
func (v *verification) claimed(ctx context.Context) error {
	for node, h := range v.claims {
		report := v.report(node)
		if h.Seq < report.FirstSeq {
			continue // trimmed
		}
		var rows []*store.AuditRow
		if err := v.service.store.Read(ctx, func(r store.Reader) (err error) {
			rows, err = r.AuditChain(node, h.Seq, 1)
			return err
		}); err != nil {
			return err
		}
		switch {
		case len(rows) == 0 || rows[0].Seq != h.Seq:
			broken(report, fmt.Sprintf("#%d", report.LastSeq+1), fmt.Sprintf("the end is missing: the chain had come to #%d at least", h.Seq))
		case hex.EncodeToString(rows[0].MAC) != h.MAC:
			broken(report, name(rows[0]), fmt.Sprintf("entry #%d is not the one that was there before", h.Seq))
		}
	}
	return nil
}

// report is the node's; made where a chain is only known from others.
func (v *verification) report(node string) *api.ChainReport {
	for i := range v.reports {
		if v.reports[i].Node == node {
			return &v.reports[i]
		}
	}
	v.reports = append(v.reports, api.ChainReport{Node: node, OK: true})
	return &v.reports[len(v.reports)-1]
}
