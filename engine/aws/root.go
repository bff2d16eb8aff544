package aws

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const rotatingRoot = "rotate the root credentials"

// rotationTag is on root's user while its key is rotated: the former key's id and the moment at which
// the next one was about to be made. Keys have no marks; by this a next key that was lost on its way
// is told from one that somebody made by hand.
const rotationTag = tagPrefix + "rotation"

// rotationTime is how long after the moment of the tag the key was made that belongs to it.
const rotationTime = engine.MaxOperationTimeout + signatureLife

// PlanRoot implements engine.RootRotator. IAM makes keys itself, so the candidate is made there, as
// the second of the two that a user can have; the present one is left as it is.
func (e *Engine) PlanRoot(ctx context.Context) (map[string]statement.Secret, error) {
	own, current, name, err := e.ownKeys(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.clearLost(ctx, own, current, name); err != nil {
		return nil, err
	}
	begun := tag(rotationTag, strconv.FormatInt(time.Now().Unix(), 10)+"/"+current.ID.Reveal())
	if _, err := own.iam.TagUser(ctx, &iam.TagUserInput{UserName: &name, Tags: []types.Tag{begun}}); err != nil {
		return nil, sent(rotatingRoot, err)
	}
	out, err := own.iam.CreateAccessKey(failpoint.OnSending(ctx, failpoint.RootSent), &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		refusal := sent(rotatingRoot, err)
		if refusal.Kind != engine.Uncertain { // no key was made: the tag must not vouch for one that somebody makes by hand now
			if _, err := own.iam.UntagUser(ctx, &iam.UntagUserInput{UserName: &name, TagKeys: []string{rotationTag}}); err != nil {
				e.log.Warn("the tag of a rotation that was refused could not be taken away", "user", name, "error", err)
			}
		}
		return nil, refusal
	}
	next, err := readKey(rotatingRoot, out.AccessKey)
	if err != nil {
		return nil, err
	}
	candidate := maps.Clone(e.options.Root)
	candidate["access_key_id"], candidate["secret_access_key"] = next.ID, next.Secret
	return candidate, nil
}

// ownKeys gives the user that root's keys belong to. What assumes a role is changed, not the role.
func (e *Engine) ownKeys(ctx context.Context) (own clients, current keys, name string, err error) {
	if e.config.Ambient {
		return own, current, "", failure(engine.Misconfigured, rotatingRoot+": the engine has the identity of the server's host, whose keys are replaced where they come from", nil)
	}
	e.mu.Lock()
	current = e.root
	e.mu.Unlock()
	own = e.connector.as(static(current))
	who, err := e.identify(ctx, own)
	if err != nil {
		return own, current, "", err
	}
	if name = who.user(); name == "" || current.Token != "" {
		return own, current, "", failure(engine.Misconfigured, rotatingRoot+": only the access key of an IAM user can be rotated", nil)
	}
	return own, current, name, nil
}

// clearLost deletes a key that an earlier rotation made and nobody was told of.
func (e *Engine) clearLost(ctx context.Context, own clients, current keys, name string) error {
	var others []types.AccessKeyMetadata
	pages := iam.NewListAccessKeysPaginator(own.iam, &iam.ListAccessKeysInput{UserName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return asked(rotatingRoot, err)
		}
		for _, key := range page.AccessKeyMetadata {
			if key.AccessKeyId != nil && *key.AccessKeyId != current.ID.Reveal() {
				others = append(others, key)
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	tags, err := own.iam.ListUserTags(ctx, &iam.ListUserTagsInput{UserName: &name})
	if err != nil {
		return asked(rotatingRoot, err)
	}
	for _, other := range others {
		if !lost(other, tags.Tags, current) {
			return failure(engine.Refused, rotatingRoot+": the user "+name+" has a second access key, "+*other.AccessKeyId+", which no rotation of ScaiVault made: delete it, for a user can have two", nil)
		}
		_, err := own.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: other.AccessKeyId})
		if err != nil && !gone(err) {
			return sent(rotatingRoot, err)
		}
		e.log.Warn("a key of root that a rotation made and lost was deleted", "access_key_id", *other.AccessKeyId)
	}
	return nil
}

// lost tells whether a key was made by the rotation that the tags tell of, beside the present one.
func lost(key types.AccessKeyMetadata, tags []types.Tag, current keys) bool {
	for _, t := range tags {
		if t.Key == nil || t.Value == nil || *t.Key != rotationTag || key.CreateDate == nil {
			continue
		}
		at, former, _ := strings.Cut(*t.Value, "/")
		seconds, err := strconv.ParseInt(at, 10, 64)
		if err != nil || former != current.ID.Reveal() {
			return false
		}
		after := key.CreateDate.Sub(time.Unix(seconds, 0))
		return after >= -signatureLife && after <= rotationTime // the clocks are two
	}
	return false
}

// rootPause is the time between two attempts to use the next root.
const rootPause = 500 * time.Millisecond

// SetRoot implements engine.RootRotator. The candidate is proved by clients of its own before the
// former key is deleted, with the candidate; whatever is cut off, one of the two works, and it can be
// repeated.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	next, err := readRoot("root candidate", candidate)
	if err != nil {
		return err
	}
	theirs := e.connector.as(static(next))
	who, err := e.prove(ctx, theirs)
	if err != nil {
		return err
	}
	name := who.user()
	if name == "" {
		return failure(engine.Misconfigured, rotatingRoot+": the candidate is not an IAM user's", nil)
	}
	failpoint.Hit(failpoint.RootSet)
	e.mu.Lock()
	if e.root.ID != next.ID { // else it was proved before, and the former may be there yet
		e.former = e.root
	}
	former := e.former
	e.root, e.clients = next, e.connector.root(static(next))
	e.mu.Unlock()
	failpoint.Hit(failpoint.RootProved)
	if id := former.ID.Reveal(); id != "" && former.ID != next.ID {
		_, err := theirs.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: &id})
		if err != nil && !gone(err) {
			return uncertainRoot(sent(rotatingRoot, err))
		}
		e.mu.Lock()
		e.former = keys{}
		e.mu.Unlock()
	}
	_, err = theirs.iam.UntagUser(ctx, &iam.UntagUserInput{UserName: &name, TagKeys: []string{rotationTag}})
	if err != nil {
		return uncertainRoot(sent(rotatingRoot, err))
	}
	return nil
}

// uncertainRoot keeps a candidate that is in use from being forgotten, whatever went wrong after.
func uncertainRoot(err *engine.Error) error {
	if err.Kind == engine.Refused {
		err.Kind = engine.Uncertain
	}
	return err
}

// prove waits until AWS takes the candidate, which may take it some ten seconds.
func (e *Engine) prove(ctx context.Context, theirs clients) (identity, error) {
	for {
		who, err := e.identify(ctx, theirs)
		if engine.KindOf(err) != engine.Misconfigured {
			return who, err
		}
		if !engine.Wait(ctx, rootPause) {
			return who, failure(engine.Busy, rotatingRoot+": AWS does not take the new key yet: try again", err)
		}
	}
}
