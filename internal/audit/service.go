package audit

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/store"
)

// Path is where reading the audit trail is judged, by read.
const Path = "sys/audit"

// summaryPeriod is a summary's when none is asked for.
const summaryPeriod = 24 * time.Hour

// Config is what a service needs.
type Config struct {
	Store  store.Store
	Door   *access.Door
	Chain  store.Chain  // the one that the store was given
	Logger *slog.Logger // nil: none
}

// Service answers questions about the trail, and itself records that they were asked. Run writes
// down where the chains stand.
type Service struct {
	store store.Store
	door  *access.Door
	chain store.Chain
	log   *slog.Logger

	verifying chan struct{} // holds whoever verifies

	mu      sync.Mutex
	written []head // where the chains stood when that was last written down
}

// New makes a service.
func New(c Config) *Service {
	s := &Service{store: c.Store, door: c.Door, chain: c.Chain, log: c.Logger, verifying: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

func (s *Service) admit(ctx context.Context, c *access.Caller, action string) (*access.Pass, error) {
	return s.door.Admit(ctx, c, access.Ask{Action: action, Category: access.CategoryAudit,
		Any: []access.Right{{Scope: access.ScopeAuditRead, Permission: "read", Path: Path}}})
}

// Logs lists the entries of the caller's tenant that the filter selects, newest first.
func (s *Service) Logs(ctx context.Context, c *access.Caller, f store.AuditFilter, p page.Request) (*api.AuditList, error) {
	pass, err := s.admit(ctx, c, "list")
	if err != nil {
		return nil, err
	}
	answer, err := s.logs(ctx, c.Tenant, f, p)
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

func (s *Service) logs(ctx context.Context, tenant string, f store.AuditFilter, p page.Request) (*api.AuditList, error) {
	f.Tenant = tenant
	if f.From != nil && f.To != nil && f.To.Before(*f.From) {
		return nil, fault.New(fault.InvalidRequest, "read the period: to lies before from")
	}
	before, err := position(p)
	if err != nil {
		return nil, err
	}
	var rows []*store.AuditRow
	if err := s.store.Read(ctx, func(r store.Reader) (err error) {
		rows, err = r.AuditEntries(f, before, p.Size()+1)
		return err
	}); err != nil {
		return nil, err
	}
	answer := &api.AuditList{Logs: []api.AuditEntry{}}
	rows, answer.Page = page.Cut(p, "audit", rows, func(r *store.AuditRow) string { return strconv.FormatInt(r.Pos, 10) })
	for _, r := range rows {
		answer.Logs = append(answer.Logs, r.Entry)
	}
	return answer, nil
}

// position is the number of the entry that the page before ended with; 0 for the first page.
func position(p page.Request) (int64, error) {
	key, err := p.After("audit")
	if err != nil || key == "" {
		return 0, err
	}
	seq, err := strconv.ParseInt(key, 10, 64)
	if err != nil || seq <= 0 {
		return 0, fault.New(fault.InvalidCursor, "read the cursor: it is not one that this list gave; begin again without it")
	}
	return seq, nil
}

// Summary counts the tenant's entries by action from a moment to before another: of the last day
// when neither is given.
func (s *Service) Summary(ctx context.Context, c *access.Caller, from, to *time.Time) (*api.AuditSummary, error) {
	pass, err := s.admit(ctx, c, "read")
	if err != nil {
		return nil, err
	}
	answer, err := s.summary(ctx, c.Tenant, from, to)
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

func (s *Service) summary(ctx context.Context, tenant string, from, to *time.Time) (*api.AuditSummary, error) {
	answer := &api.AuditSummary{To: time.Now().UTC().Truncate(time.Millisecond), Actions: []api.AuditActionCount{}}
	if to != nil {
		answer.To = *to
	}
	answer.From = answer.To.Add(-summaryPeriod)
	if from != nil {
		answer.From = *from
	}
	if answer.To.Before(answer.From) {
		return nil, fault.New(fault.InvalidRequest, "read the period: to lies before from")
	}
	err := s.store.Read(ctx, func(r store.Reader) error {
		counts, err := r.AuditCounts(tenant, answer.From, answer.To)
		for _, n := range counts { // in the order of the actions
			add(answer, n)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func add(to *api.AuditSummary, n store.AuditCount) {
	last := len(to.Actions) - 1
	if last < 0 || to.Actions[last].Action != n.Action {
		to.Actions = append(to.Actions, api.AuditActionCount{Action: n.Action})
		last++
	}
	to.Total += n.N
	if n.Success {
		to.Actions[last].OK += n.N
		return
	}
	to.Actions[last].Failed += n.N
	to.Failed += n.N
}
