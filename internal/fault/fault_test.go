package fault_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
)

func TestErrorNeverShowsItsCause(t *testing.T) {
	t.Parallel()
	cause := errors.New("dial postgres://root:hunter2@db")
	err := fault.New(fault.EngineUnavailable, "connect to %s", "db").With("engine", "db").Because(cause)

	for _, text := range []string{err.Error(), fmt.Sprint(err), fmt.Sprintf("%+v", err), fmt.Sprintf("%q", fmt.Errorf("issue: %w", err))} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("cause is shown: %s", text)
		}
	}
	if !errors.Is(err, cause) {
		t.Error("cause is lost")
	}
}

func TestIsMatchesByCode(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("renew: %w", fault.New(fault.LeaseExpired, "the lease has ended"))

	if !errors.Is(err, fault.LeaseExpired) {
		t.Error("code does not match")
	}
	if !errors.Is(err, fault.New(fault.LeaseExpired, "another text")) {
		t.Error("error of the same code does not match")
	}
	if errors.Is(err, fault.LeaseRevoked) || errors.Is(err, fault.New(fault.LeaseRevoked, "the lease has ended")) {
		t.Error("another code matches")
	}
}

func TestErrorsAreImmutable(t *testing.T) {
	t.Parallel()
	base := fault.New(fault.InvalidDuration, "ttl is too long").With("max_ttl", "1h")
	changed := base.With("ttl", "2h").After(time.Second).Because(context.Canceled)

	if len(base.Details) != 1 || base.RetryAfter != 0 || base.Err != nil {
		t.Errorf("the first error changed: %+v", *base)
	}
	if len(changed.Details) != 2 || changed.RetryAfter != time.Second || changed.Err == nil {
		t.Errorf("the copy lacks something: %+v", *changed)
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		err   error
		code  fault.Code
		retry bool
	}{
		{"nil", nil, "", false},
		{"fault", fault.New(fault.EngineInUse, "x"), fault.EngineInUse, false},
		{"wrapped fault", fmt.Errorf("delete: %w", fault.New(fault.EngineInUse, "x")), fault.EngineInUse, false},
		{"fault over a deadline", fault.New(fault.EngineUnavailable, "x").Because(context.DeadlineExceeded), fault.EngineUnavailable, true},
		{"bare code", fmt.Errorf("get: %w", fault.LeaseNotFound), fault.LeaseNotFound, false},
		{"deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), fault.ServiceUnavailable, true},
		{"cancelled", context.Canceled, fault.ServiceUnavailable, true},
		{"unknown", errors.New("password=hunter2"), fault.InternalError, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := fault.CodeOf(tt.err); got != tt.code {
				t.Fatalf("code = %q, want %q", got, tt.code)
			}
			got := fault.From(tt.err)
			if tt.err == nil {
				if got != nil {
					t.Fatalf("From(nil) = %v", got)
				}
				return
			}
			if strings.Contains(got.Error(), "hunter2") {
				t.Errorf("text of an unknown error is shown: %v", got)
			}
			if !errors.Is(got, tt.err) && !errors.Is(tt.err, got) {
				t.Error("the cause is lost")
			}
			if (got.RetryAfter > 0) != tt.retry {
				t.Errorf("RetryAfter = %v", got.RetryAfter)
			}
		})
	}
}

// Every declared code has a status of its own choosing: only internal_error,
// and what is unknown, is a 500.
func TestEveryCodeHasAStatus(t *testing.T) {
	t.Parallel()
	codes := declaredCodes(t)
	if len(codes) < 60 {
		t.Fatalf("found only %d codes in code.go", len(codes))
	}
	for name, code := range codes {
		status := fault.Status(code)
		switch {
		case code == fault.InternalError:
			if status != http.StatusInternalServerError {
				t.Errorf("%s: status %d", name, status)
			}
		case status == http.StatusInternalServerError:
			t.Errorf("%s has no status", name)
		case strings.HasSuffix(string(code), "not_found") != (status == http.StatusNotFound):
			t.Errorf("%s: status %d", name, status)
		case strings.HasSuffix(string(code), "_exists") && status != http.StatusConflict:
			t.Errorf("%s: status %d", name, status)
		case strings.HasPrefix(string(code), "invalid_") && status != http.StatusBadRequest:
			t.Errorf("%s: status %d", name, status)
		}
		if camel := strings.NewReplacer("_", "").Replace(string(code)); !strings.EqualFold(camel, name) {
			t.Errorf("constant %s holds %q", name, code)
		}
	}
	if fault.Status("made_up") != http.StatusInternalServerError {
		t.Error("an unknown code is not a 500")
	}
}

func declaredCodes(t *testing.T) map[string]fault.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := make(map[string]fault.Code)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		text, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		codes[spec.Names[0].Name] = fault.Code(text)
		return true
	})
	return codes
}
