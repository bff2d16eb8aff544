package mongodb

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"github.com/scaivault/scaivault/engine"
)

// TestSentError: what the source said no to was not done, what it gave up may have been, and what it
// never saw was not.
func TestSentError(t *testing.T) {
	t.Parallel()
	said := func(code int32) error { return mongo.CommandError{Code: code, Message: "said by the source"} }
	for name, c := range map[string]struct {
		err         error
		sent, asked engine.Kind
	}{
		"Unauthorized":            {said(13), engine.Misconfigured, engine.Misconfigured},
		"AuthenticationFailed":    {said(18), engine.Misconfigured, engine.Misconfigured},
		"CommandNotFound":         {said(59), engine.Misconfigured, engine.Misconfigured},
		"AtlasError":              {said(8000), engine.Misconfigured, engine.Misconfigured},
		"NotWritablePrimary":      {said(10107), engine.Busy, engine.Busy},
		"NotPrimaryNoSecondaryOk": {said(13435), engine.Busy, engine.Busy},
		"NotPrimaryOrSecondary":   {said(13436), engine.Busy, engine.Busy},
		"LockBusy":                {said(46), engine.Busy, engine.Busy},
		"MaxTimeMSExpired":        {said(50), engine.Uncertain, engine.Unreachable},
		"WriteConcernTimeout":     {said(64), engine.Uncertain, engine.Unreachable},
		"ShutdownInProgress":      {said(91), engine.Uncertain, engine.Unreachable},
		"PrimarySteppedDown":      {said(189), engine.Uncertain, engine.Unreachable},
		"InterruptedAtShutdown":   {said(11600), engine.Uncertain, engine.Unreachable},
		"Interrupted":             {said(11601), engine.Uncertain, engine.Unreachable},
		"InterruptedByChange":     {said(11602), engine.Uncertain, engine.Unreachable},
		"BadValue":                {said(2), engine.Refused, engine.Refused},
		"no majority":             {mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}}, engine.Uncertain, engine.Unreachable},
		"a broken connection":     {mongo.CommandError{Message: "connection reset", Labels: []string{"NetworkError"}}, engine.Uncertain, engine.Unreachable},
		"no server":               {topology.ServerSelectionError{Wrapped: context.DeadlineExceeded}, engine.Unreachable, engine.Unreachable},
		"no connection":           {topology.WaitQueueTimeoutError{Wrapped: context.DeadlineExceeded}, engine.Unreachable, engine.Unreachable},
		"a closed client":         {mongo.ErrClientDisconnected, engine.Unreachable, engine.Unreachable},
		"a certificate":           {errors.New("tls: failed to verify certificate: x509: unknown authority"), engine.Misconfigured, engine.Misconfigured},
		"our own":                 {busy("somebody else", nil), engine.Busy, engine.Busy},
	} {
		if got := sentError("try", c.err); got.Kind != c.sent {
			t.Errorf("%s: a change that fails so is of kind %d, not %d: %v", name, got.Kind, c.sent, got)
		}
		if got := asked("try", c.err); got.Kind != c.asked {
			t.Errorf("%s: a question that fails so is of kind %d, not %d: %v", name, got.Kind, c.asked, got)
		}
	}
}

// TestWords: a hostile source does not fill logs and answers.
func TestWords(t *testing.T) {
	t.Parallel()
	got := sentError("try", mongo.CommandError{Code: 2, Message: strings.Repeat("é\xff", 10000)})
	if len(got.Reason) > 400 || strings.ToValidUTF8(got.Reason, "") != got.Reason {
		t.Errorf("%d bytes: %q", len(got.Reason), got.Reason)
	}
}
