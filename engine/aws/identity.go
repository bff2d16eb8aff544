package aws

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// The tags of every user of ours. The mark is signed over the user's name, so that it says nothing on
// another user.
const (
	tagPrefix = "scaivault:"
	markTag   = tagPrefix + "mark"
	leaseTag  = tagPrefix + "lease"
	engineTag = tagPrefix + "engine"
)

func markOf(namer *statement.Namer, name string) string { return namer.Mark("aws/" + name) }

// source is the identity of an account: it is the same for ever, and of one part of AWS.
func (i identity) source() string {
	parts := strings.SplitN(i.arn, ":", 3)
	if len(parts) < 3 {
		return i.account
	}
	return parts[1] + ":" + i.account
}

// user is the name of the IAM user that the identity is; empty where it is none.
func (i identity) user() string {
	_, rest, ok := strings.Cut(i.arn, ":user/")
	if !ok {
		return ""
	}
	return rest[strings.LastIndex(rest, "/")+1:]
}

// principal is the ARN by which IAM knows who the identity is; empty where no request tells.
func (i identity) principal() string {
	if strings.Contains(i.arn, ":user/") || strings.HasSuffix(i.arn, ":root") {
		return i.arn
	}
	return ""
}

// role is the name of the role that the identity is a session of; empty where it is none.
func (i identity) role() string {
	_, rest, ok := strings.Cut(i.arn, ":assumed-role/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// findUser looks a user up; nil where there is none.
func findUser(ctx context.Context, c clients, name string) (*types.User, error) {
	out, err := c.iam.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	if gone(err) {
		return nil, nil //nolint:nilnil // no user is an answer
	} else if err != nil {
		return nil, asked("look a user up", err)
	}
	if out.User == nil || out.User.UserId == nil {
		return nil, failure(engine.Unreachable, "look a user up: what answers is not IAM", nil)
	}
	return out.User, nil
}

// ours tells whether a user was made by this installation, by the checksum in its name, and for the lease
// of the recipe by the id that AWS gave it, which no other user ever has; where that is not known, by its
// mark (law L11). So a user that lost its tags dies all the same.
func (e *Engine) ours(u *types.User, r recipe) bool {
	if !e.options.Namer.Ours(r.Username) || r.UserID != "" && *u.UserId != r.UserID && r.Source == e.source {
		return false
	}
	if r.LeaseID != "" && r.UserID == *u.UserId && r.Source == e.source { // not one that was read from the list
		return true
	}
	for _, tag := range u.Tags {
		if tag.Key != nil && *tag.Key == markTag {
			return tag.Value != nil && *tag.Value == markOf(e.options.Namer, r.Username)
		}
	}
	return false
}
