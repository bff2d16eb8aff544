package aws

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	maxAnswer     = 8 << 20 // of the body of an answer; a page of users has some hundred kB
	maxAttempts   = 6       // of a request that is throttled
	maxBackoff    = 4 * time.Second
	rootLife      = time.Hour       // of the session in which root assumes role_arn
	rootLifeSpare = 5 * time.Minute // after which it is made anew
	rootSession   = "scaivault"     // its name
)

// keys are what requests are signed with.
type keys struct {
	ID, Secret statement.Secret
	Token      statement.Secret // of a session; empty for a user's own keys
}

// readRoot takes the root's keys out of the root secret's fields.
func readRoot(which string, fields map[string]statement.Secret) (keys, error) {
	k := keys{fields["access_key_id"], fields["secret_access_key"], fields["session_token"]}
	if k.ID == "" || k.Secret == "" {
		return k, failure(engine.Misconfigured, "the "+which+" lacks its field access_key_id or secret_access_key", nil)
	}
	return k, nil
}

// clients are how one set of keys reaches AWS.
type clients struct {
	iam *iam.Client
	sts *sts.Client
}

// connector makes clients. All that they send goes through the dialer of the options; they read no
// environment, no files and no metadata service, since every setting is given here. What tells the keys
// of the host's identity is asked in ambient.go alone.
type connector struct {
	config *config
	http   *http.Client
	verify bool // TLS on every way
}

func newConnector(ctx context.Context, c *config, o engine.Options) (*connector, error) {
	var trust *tls.Config
	if c.TLS.Given() {
		var err error
		if trust, err = c.TLS.Load(ctx, o); err != nil {
			return nil, err
		}
	}
	client := engine.HTTPClient(o, trust, *c.MaxOpenConnections)
	client.Transport = bounded{client.Transport}
	return &connector{config: c, http: client, verify: encrypted(c.IAMEndpoint) && encrypted(c.STSEndpoint)}, nil
}

// encrypted tells whether an endpoint is reached by TLS, as AWS's own is.
func encrypted(endpoint string) bool {
	scheme, _, _ := strings.Cut(endpoint, ":")
	return endpoint == "" || strings.EqualFold(scheme, "https")
}

// bounded gives up on answers that no IAM or STS gives.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	failpoint.Sent(r.Context())
	if err == nil {
		limit(response, maxAnswer)
	}
	return response, err
}

// limit ends the body of an answer after so many bytes.
func limit(response *http.Response, most int64) {
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, most), response.Body}
}

func (b bounded) CloseIdleConnections() {
	if closer, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// root are clients with the root's keys, or as the role that these assume.
func (c *connector) root(who sdk.CredentialsProvider) clients {
	if c.config.RoleARN == "" {
		return c.as(who)
	}
	assume := stscreds.NewAssumeRoleProvider(c.as(who).sts, c.config.RoleARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = rootSession
		o.Duration = rootLife
		if c.config.ExternalID != "" {
			o.ExternalID = &c.config.ExternalID
		}
	})
	return c.as(sdk.NewCredentialsCache(assume, func(o *sdk.CredentialsCacheOptions) { o.ExpiryWindow = rootLifeSpare }))
}

func static(k keys) sdk.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(k.ID.Reveal(), k.Secret.Reveal(), k.Token.Reveal())
}

func (c *connector) as(who sdk.CredentialsProvider) clients {
	retries := retrier()
	return clients{
		iam: iam.New(iam.Options{Region: c.config.Region, Credentials: who, BaseEndpoint: optional(c.config.IAMEndpoint),
			HTTPClient: c.http, Retryer: retries, HTTPSignerV4: fence{v4.NewSigner()}}),
		sts: sts.New(sts.Options{Region: c.config.Region, Credentials: who, BaseEndpoint: optional(c.config.STSEndpoint),
			HTTPClient: c.http, Retryer: retries, HTTPSignerV4: fence{v4.NewSigner()}}),
	}
}

// retrier repeats what AWS has throttled, ever more slowly, and nothing else: of a request without an
// answer nobody knows whether it was done, and one that makes something must not be done twice.
func retrier() sdk.Retryer {
	return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
		o.StandardOptions = append(o.StandardOptions, func(s *retry.StandardOptions) {
			s.MaxAttempts, s.MaxBackoff = maxAttempts, maxBackoff
			s.Retryables = []retry.IsErrorRetryable{
				retry.NoRetryCanceledError{}, clockSkew{}, retry.RetryableErrorCode{Codes: retry.DefaultThrottleErrorCodes},
				retry.IsErrorRetryableFunc(func(error) sdk.Ternary { return sdk.FalseTernary }),
			}
		})
	})
}

// clockSkew lets a request be repeated that AWS refused for its time, where the time that AWS told
// with the refusal cures it.
type clockSkew struct{}

func (clockSkew) IsErrorRetryable(err error) sdk.Ternary {
	if expired(err) {
		return retry.RetryableError{}.IsErrorRetryable(err)
	}
	return sdk.UnknownTernary
}

// signatureLife is how long after its time AWS takes a request to IAM and STS.
const signatureLife = 5 * time.Minute

// fence signs requests that make something so that AWS itself refuses them after the deadline of the
// issue (law L1) or of the renewal (law L4). AWS takes no request that is signed for a moment more than five minutes ago; so one
// that must be done within ten seconds is signed for four minutes and fifty seconds ago. Whatever
// keeps it back, frozen machines or slow networks, it is delivered too late to be done. Times are told
// in whole seconds, AWS's own on its answers, too: it may be refused up to two seconds early.
type fence struct{ *v4.Signer }

// fenceKey is the key of the deadline that a context carries.
type fenceKey struct{}

func withFence(ctx context.Context, deadline time.Time) context.Context {
	return context.WithValue(ctx, fenceKey{}, deadline)
}

func (f fence) SignHTTP(ctx context.Context, who sdk.Credentials, r *http.Request, payload, service, region string, at time.Time, options ...func(*v4.SignerOptions)) error {
	if deadline, ok := ctx.Value(fenceKey{}).(time.Time); ok { // at is AWS's time, as far as it is known
		at = at.Add(min(0, time.Until(deadline)-signatureLife))
	}
	return f.Signer.SignHTTP(ctx, who, r, payload, service, region, at, options...)
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
