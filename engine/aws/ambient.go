package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/scaivault/scaivault/engine"
)

const (
	taking = "take the keys of the host's identity"

	keysAhead       = 5 * time.Minute  // before their end, keys are taken anew
	keysPause       = 30 * time.Second // between two attempts while the present keys are good
	maxMetadata     = 64 << 10         // of the body of an answer
	maxMetadataHead = 16 << 10
	maxToken        = 64 << 10 // of a file with a token
)

// ambient gives the keys of the host's identity. They are nowhere but in memory.
func (h Host) ambient(c *connector, log *slog.Logger) sdk.CredentialsProvider {
	steady := &steady{within: c.config.ConnectTimeout.Std(), log: log}
	switch h.source {
	case instanceSource:
		way := newWay(h.metadata)
		client := imds.New(imds.Options{Endpoint: h.metadata.url, ClientEnableState: imds.ClientEnabled, EnableFallback: sdk.FalseTernary,
			HTTPClient: way.client(), Retryer: sdk.NopRetryer{}}) // it is asked again when keys are needed again
		steady.source = ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client })
		steady.begin, steady.explain = way.begin, way.ofInstance
	case containerSource:
		way := newWay(h.metadata)
		client := way.client()
		steady.source = sdk.CredentialsProviderFunc(func(ctx context.Context) (sdk.Credentials, error) {
			token, err := h.authorization()
			if err != nil {
				return sdk.Credentials{}, err
			}
			return endpointcreds.New(h.metadata.url, func(o *endpointcreds.Options) {
				o.HTTPClient, o.AuthorizationToken, o.Retryer = client, token, sdk.NopRetryer{}
			}).Retrieve(ctx)
		})
		steady.begin, steady.explain = way.begin, way.ofContainer
	case webSource:
		steady.source = stscreds.NewWebIdentityRoleProvider(c.as(sdk.AnonymousCredentials{}).sts, h.roleARN, tokenFile(h.tokenFile), func(o *stscreds.WebIdentityRoleOptions) {
			o.RoleSessionName = h.session
		})
		steady.begin, steady.explain = func() {}, ofWebIdentity
	}
	return hostKeys{sdk.NewCredentialsCache(steady)}
}

// hostKeys are the present keys. Whoever waits for new ones waits within his own time, and all for the
// same. Without keys nothing was sent to AWS, so an error says that nothing is left there.
type hostKeys struct{ cache *sdk.CredentialsCache }

func (k hostKeys) Retrieve(ctx context.Context) (sdk.Credentials, error) {
	found, err := k.cache.Retrieve(ctx)
	var known *engine.Error
	if err != nil && !errors.As(err, &known) {
		err = failure(engine.Unreachable, taking+": they were not given in time", err)
	}
	return found, err
}

// steady takes keys anew ahead of their end, and goes on with those it has while they are good and the
// source is not. It is used by one at a time.
type steady struct {
	source  sdk.CredentialsProvider
	begin   func()
	explain func(error) *engine.Error
	within  time.Duration
	log     *slog.Logger
	last    sdk.Credentials // empty before the first
}

// Retrieve gives keys that expire, for whoever keeps them, when it is time to take new ones.
func (s *steady) Retrieve(ctx context.Context) (sdk.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, s.within)
	defer cancel()
	s.begin()
	found, err := s.ask(ctx)
	now := time.Now()
	if err != nil {
		err = s.explain(err)
	} else {
		err = plain(temporary(found, now))
	}
	switch {
	case err == nil:
		s.last = found
	case now.Before(s.last.Expires):
		s.log.Warn("the keys of the host's identity could not be taken anew; the present ones are used to their end", "end", s.last.Expires, "error", err)
	default:
		return sdk.Credentials{}, err
	}
	keys := s.last
	keys.Expires = renewal(keys.Expires, now)
	return keys, nil
}

// ask survives what the SDK does not: it panics on an answer of null.
func (s *steady) ask(ctx context.Context) (found sdk.Credentials, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the SDK cannot read the answer")
		}
	}()
	return s.source.Retrieve(ctx)
}

// renewal is when keys that end are to be taken anew.
func renewal(end, now time.Time) time.Time {
	at := end.Add(-keysAhead)
	if soonest := now.Add(keysPause); at.Before(soonest) {
		at = soonest
	}
	if at.After(end) {
		return end
	}
	return at
}

// temporary refuses keys that do not end, which are no identity of a host, and those that have ended.
func temporary(k sdk.Credentials, now time.Time) *engine.Error {
	switch {
	case k.AccessKeyID == "" || k.SecretAccessKey == "":
		return failure(engine.Unreachable, taking+": what answers gives none", nil)
	case k.SessionToken == "" || !k.CanExpire:
		return failure(engine.Misconfigured, taking+": what answers gives long-lived keys of a user: put them into a secret", nil)
	case !now.Before(k.Expires):
		return failure(engine.Unreachable, taking+": what answers gives keys that have ended", nil)
	}
	return nil
}

// way leads to one address, whatever a request, a name or a proxy says. Metadata services are out of
// reach of everything else in the server.
type way struct {
	transport http.RoundTripper
	answered  atomic.Int32 // the status of the last answer; 0 for none
	asked     atomic.Value // the method of the last request
}

func newWay(to place) *way {
	var dialer net.Dialer
	return &way{transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", to.addr.String())
		},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxMetadataHead,
	}}
}

// client follows no redirect: the answer that redirects is no keys.
func (w *way) client() *http.Client {
	return &http.Client{Transport: w, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *way) begin() { w.answered.Store(0) }

// RoundTrip implements http.RoundTripper. It notes the status, which the SDK does not always tell.
func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	w.asked.Store(r.Method)
	w.answered.Store(0)
	response, err := w.transport.RoundTrip(r)
	if err == nil {
		w.answered.Store(int32(response.StatusCode))
		limit(response, maxMetadata)
	}
	return response, err
}

// ofInstance says what is wrong with a metadata service. The answer itself, which may hold keys, is
// not told, nor are the SDK's words, which may repeat it.
func (w *way) ofInstance(error) *engine.Error {
	const service = taking + ": the metadata service of the instance "
	status := int(w.answered.Load())
	switch {
	case w.asked.Load() == http.MethodPut && (status/100 == 2 || status/100 == 4):
		return failure(engine.Misconfigured, service+"gives no token: only IMDSv2 is used, never the first version", nil)
	case status == http.StatusNotFound:
		return failure(engine.Misconfigured, service+"has no keys: give the instance a profile with a role", nil)
	}
	return refusal(service, status)
}

func (w *way) ofContainer(err error) *engine.Error {
	const service = taking + ": the credentials service of the container "
	var unread *tokenError
	if errors.As(err, &unread) {
		return failure(engine.Misconfigured, taking+": the file of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read", unread.err)
	}
	status := int(w.answered.Load())
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return failure(engine.Misconfigured, service+"does not take the authorization token", nil)
	case http.StatusNotFound, http.StatusBadRequest:
		return failure(engine.Misconfigured, service+"has no keys: give the task or the service account a role", nil)
	}
	return refusal(service, status)
}

func refusal(service string, status int) *engine.Error {
	switch {
	case status == 0:
		return failure(engine.Unreachable, service+"does not answer", nil)
	case status/100 == 2:
		return failure(engine.Unreachable, service+"answers with something else", nil)
	case status/100 == 3:
		return failure(engine.Misconfigured, service+"redirects, which is not followed", nil)
	}
	return failure(engine.Unreachable, fmt.Sprintf("%sanswers with status %d", service, status), nil)
}

func ofWebIdentity(err error) *engine.Error {
	var unread *tokenError
	if errors.As(err, &unread) {
		return failure(engine.Misconfigured, taking+": the file of AWS_WEB_IDENTITY_TOKEN_FILE cannot be read", unread.err)
	}
	mapped := asked(taking, err)
	if mapped.Kind == engine.Refused || mapped.Kind == engine.Misconfigured && code(err) != "" {
		return failure(engine.Misconfigured, taking+": STS does not take the web identity for AWS_ROLE_ARN: "+safeCode(code(err)), err)
	}
	return mapped
}

// authorization is what a container's request is authorized by, as the file says it now: it is replaced
// while the server runs.
func (h Host) authorization() (string, error) {
	if h.tokenFile == "" {
		return h.token.Reveal(), nil
	}
	token, err := tokenFile(h.tokenFile).GetIdentityToken()
	return string(token), err
}

// tokenFile is a file with a token, which is replaced before the token ends.
type tokenFile string

// tokenError is the failure to read one.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return "read a token: " + e.err.Error() }

func (f tokenFile) GetIdentityToken() ([]byte, error) {
	file, err := os.Open(string(f))
	if err != nil {
		return nil, &tokenError{err}
	}
	defer file.Close()
	token, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	token = bytes.TrimSpace(token)
	switch {
	case err != nil:
		return nil, &tokenError{err}
	case len(token) == 0 || len(token) > maxToken:
		return nil, &tokenError{errors.New("it is empty or longer than 64 KiB")}
	}
	return token, nil
}

var (
	_ sdk.CredentialsProvider         = hostKeys{}
	_ sdk.CredentialsProvider         = (*steady)(nil)
	_ stscreds.IdentityTokenRetriever = tokenFile("")
	_ http.RoundTripper               = (*way)(nil)
)
