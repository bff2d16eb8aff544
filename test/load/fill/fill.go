// Package fill puts leases into a store as a life would have left them there: several engines and
// roles, many callers, living and dead, each with its entries of the audit chain. It writes through
// the store's own transactions, so that counters, indexes and chain are what they would be. No
// source is asked for anything: the accounts do not exist.
package fill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// Plan says what to make.
type Plan struct {
	Leases int
	// Revoked is the share of leases that are dead already, 0 to 1.
	Revoked float64
	// Engine and Role choose among the store's roles; "" takes all in turn.
	Engine, Role string
	// Due is when the living leases end, spread over a second; zero spreads them from a month to a
	// year ahead.
	Due time.Time
	// Progress is told now and then how many leases there are; may be nil.
	Progress func(done int)
}

// batch is how many leases are written in one transaction: so many that the commit costs nothing,
// and so few that memory stays small.
const batch = 1000

// Fill makes the leases. A store without engines is given some, whose source is not there.
func Fill(ctx context.Context, st store.Store, p Plan) error {
	roles, err := rolesOf(ctx, st, p)
	if err != nil {
		return err
	}
	m := maker{plan: p, roles: roles, node: st.Node(), epoch: st.Epoch(),
		random: rand.New(rand.NewPCG(1, uint64(st.Epoch())))}
	for done := 0; done < p.Leases; {
		n := min(batch, p.Leases-done)
		lives := make([]life, n)
		for i := range lives {
			lives[i] = m.life(done + i)
		}
		err := st.WriteRelaxed(ctx, func(tx store.Tx) error {
			now := tx.Now()
			for _, l := range lives {
				if err := l.write(tx, now); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("write leases: %w", err)
		}
		if done += n; p.Progress != nil && done%(50*batch) == 0 {
			p.Progress(done)
		}
	}
	return st.Ping(ctx)
}

// role is one that leases are made of.
type role struct {
	engineID, engine, sourceID, name string
}

// rolesOf are the roles of the store that the plan chooses.
func rolesOf(ctx context.Context, st store.Store, p Plan) (chosen []role, err error) {
	err = st.Write(ctx, func(tx store.Tx) error {
		chosen = nil
		engines, err := tx.Objects(store.DefaultTenant, store.KindEngine, "", "", 0)
		if err == nil && len(engines) == 0 {
			engines, err = putEngines(tx)
		}
		if err != nil {
			return err
		}
		for _, e := range engines {
			var doc engineDoc
			if err := json.Unmarshal(e.Doc, &doc); err != nil {
				return fmt.Errorf("read engine %s: %w", e.Key, err)
			}
			roles, err := tx.Objects(store.DefaultTenant, store.KindRole, e.Key+"/", "", 0)
			if err != nil {
				return err
			}
			for _, r := range roles {
				name := r.Key[len(e.Key)+1:]
				if (p.Engine == "" || p.Engine == e.Key) && (p.Role == "" || p.Role == name) {
					chosen = append(chosen, role{e.ID, e.Key, doc.SourceID, name})
				}
			}
		}
		return nil
	})
	if err == nil && len(chosen) == 0 {
		err = errors.New("fill the store: it has engines, but no role that is asked for")
	}
	return chosen, err
}

// engineDoc is what there must be of an engine's document.
type engineDoc struct {
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Plugin     string            `json:"plugin"`
	Config     map[string]string `json:"config"`
	DefaultTTL api.Duration      `json:"default_ttl"`
	MaxTTL     api.Duration      `json:"max_ttl"`
	SourceID   string            `json:"source_id"`
}

// roleDoc is what there must be of a role's.
type roleDoc struct {
	Engine    string              `json:"engine"`
	EngineID  string              `json:"engine_id"`
	Name      string              `json:"name"`
	Renewable bool                `json:"renewable"`
	Spec      map[string][]string `json:"spec"`
}
