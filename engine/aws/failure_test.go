package aws

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/scaivault/scaivault/engine"
)

// A root that may not assume its role ends no user at all; one that may not delete a user may delete
// others.
func TestEnding(t *testing.T) {
	t.Parallel()
	denied := &smithy.GenericAPIError{Code: "AccessDenied"}
	assume := &smithy.OperationError{ServiceID: "STS", OperationName: "AssumeRole", Err: denied}
	byWeb := failure(engine.Misconfigured, taking, &smithy.OperationError{ServiceID: "STS", OperationName: "AssumeRoleWithWebIdentity", Err: denied})
	for name, c := range map[string]struct {
		err  error
		want engine.Kind
	}{
		"the user": {&smithy.OperationError{ServiceID: "IAM", OperationName: "DeleteUser", Err: denied}, engine.Refused},
		"the role": {&smithy.OperationError{ServiceID: "IAM", OperationName: "DeleteUser", Err: assume}, engine.Misconfigured},
		"the host": {&smithy.OperationError{ServiceID: "IAM", OperationName: "DeleteUser", Err: byWeb}, engine.Misconfigured},
		"the keys": {&smithy.OperationError{ServiceID: "IAM", OperationName: "DeleteUser", Err: &smithy.GenericAPIError{Code: "InvalidClientTokenId"}}, engine.Misconfigured},
		"nobody":   {&smithy.OperationError{ServiceID: "IAM", OperationName: "DeleteUser", Err: errors.New("lost")}, engine.Uncertain},
	} {
		if says := ending(sent(revoking, c.err)).Error(); errors.Is(c.err, assume) && !strings.Contains(says, "sts:AssumeRole") {
			t.Errorf("%s: the right that is missing is told as: %s", name, says)
		}
		if kind := engine.KindOf(ending(sent(revoking, c.err))); kind != c.want {
			t.Errorf("%s: %d, want %d", name, kind, c.want)
		}
	}
}
