package aws

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/scaivault/scaivault/engine"
)

// Now implements engine.Clock: the time that AWS writes on its answers, in whole seconds.
func (e *Engine) Now(ctx context.Context) (time.Time, error) {
	const attempt = "read the clock of AWS"
	c, err := e.reach()
	if err != nil {
		return time.Time{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	out, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return time.Time{}, asked(attempt, err)
	}
	now, ok := middleware.GetServerTime(out.ResultMetadata)
	if !ok || now.IsZero() {
		return time.Time{}, failure(engine.Unreachable, attempt+": it does not tell the time", nil)
	}
	return now, nil
}
