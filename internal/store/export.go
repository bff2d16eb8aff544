package store

// How many rows an export reads at once, and those of secrets' versions, which may be large.
const (
	PageSize  = 500
	LargePage = 16
)

// Tables are one snapshot of all that a store holds. A method that takes the last row answers the
// page of those after it in the order of their keys: the first page for a zero row, and an empty one
// at the end.
type Tables interface {
	State() (*State, error)
	MetaValues(last *MetaValue) ([]*MetaValue, error)
	Objects(last *Object) ([]*Object, error)
	Secrets(last *Secret) ([]*Secret, error)
	Versions(last *SecretVersion) ([]*SecretVersion, error)
	Leases(last *Lease) ([]*Lease, error)
	Fences(last *Fence) ([]*Fence, error)
	// AuditChain is that of [Reader].
	AuditChain(node string, from int64, limit int) ([]*AuditRow, error)
}

// Walk hands on the rows of all tables as records, in an order in which they can be imported. An
// error of emit ends it and is returned as it is.
func Walk(t Tables, emit func(r *Record) error) error {
	state, err := t.State()
	if err != nil {
		return err
	}
	if err := emit(&Record{State: state}); err != nil {
		return err
	}
	tables := []func(emit func(r *Record) error) error{
		records(t.MetaValues, func(m *MetaValue) *Record { return &Record{Meta: m} }),
		records(t.Objects, func(o *Object) *Record { return &Record{Object: o} }),
		records(t.Secrets, func(s *Secret) *Record { return &Record{Secret: s} }),
		records(t.Versions, func(v *SecretVersion) *Record { return &Record{Version: v} }),
		records(t.Leases, func(l *Lease) *Record { return &Record{Lease: l} }),
		records(t.Fences, func(f *Fence) *Record { return &Record{Fence: f} }),
	}
	for _, n := range state.Nodes {
		chain := func(last *AuditRow) ([]*AuditRow, error) { return t.AuditChain(n.ID, last.Seq+1, PageSize) }
		tables = append(tables, records(chain, func(a *AuditRow) *Record {
			return &Record{Audit: &ChainEntry{Node: a.Node, Seq: a.Seq, Tenant: a.Tenant, Raw: a.Raw, MAC: a.MAC}}
		}))
	}
	for _, table := range tables {
		if err := table(emit); err != nil {
			return err
		}
	}
	return nil
}

// records hands on the rows of all pages as records; it holds one page.
func records[T any](page func(last *T) ([]*T, error), record func(row *T) *Record) func(emit func(r *Record) error) error {
	return func(emit func(r *Record) error) error {
		for last := new(T); ; {
			rows, err := page(last)
			if err != nil || len(rows) == 0 {
				return err
			}
			for _, row := range rows {
				if err := emit(record(row)); err != nil {
					return err
				}
			}
			last = rows[len(rows)-1]
		}
	}
}
