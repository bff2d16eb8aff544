package aws

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// The kinds of credentials.
const (
	iamUser         = "iam_user"
	assumedRole     = "assumed_role"
	federationToken = "federation_token"
	sessionToken    = "session_token"
)

// Limits of IAM and STS.
const (
	maxNameBytes     = 64   // of a user and of a session of a role
	maxFederatedName = 32   // of a federated user
	maxInline        = 2048 // characters of all inline policies of a user
	maxSessionPolicy = 2048 // characters of a session's policy and its policy ARNs
	maxPolicies      = 10
	maxGroups        = 10
	maxRoles         = 20 // ours
	maxTags          = 50 - ownTags
	ownTags          = 3
	shortestSession  = 15 * time.Minute
	longestSession   = 36 * time.Hour
	longestRole      = 12 * time.Hour
	longestChained   = time.Hour
	pathPrefix       = "/scaivault/" // of every user, so that root may be confined to it
)

// role is the engine's part of a role.
type role struct {
	CredentialType  string            `json:"credential_type"`
	PolicyARNs      []string          `json:"policy_arns"`
	PolicyDocument  document          `json:"policy_document"`
	RoleARNs        []string          `json:"role_arns"`
	ExternalID      string            `json:"external_id"`
	IAMGroups       []string          `json:"iam_groups"`
	BoundaryARN     string            `json:"permissions_boundary_arn"`
	UserPath        string            `json:"user_path"`
	IAMTags         map[string]string `json:"iam_tags"`
	WaitUntilUsable bool              `json:"wait_until_usable"`
	EndSessions     bool              `json:"end_sessions"`
}

var (
	groupForm = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,128}$`)
	pathForm  = regexp.MustCompile(`^/scaivault/([A-Za-z0-9_+=,.@-]{1,64}/){0,6}$`)
	tagForm   = regexp.MustCompile(`^[A-Za-z0-9 _.:/=+@-]*$`)
)

// parseRole decodes and checks a role. Whether what it names exists, the source is asked when the
// role is saved.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	if r.CredentialType == iamUser && r.UserPath == "" {
		r.UserPath = pathPrefix
	}
	if err := r.checkNames(); err != nil {
		return nil, err
	}
	if r.PolicyDocument != "" {
		if why := r.PolicyDocument.check(); why != "" {
			return nil, engine.Invalid("policy_document %s", why)
		}
	}
	user, assumed := r.CredentialType == iamUser, r.CredentialType == assumedRole
	session := r.CredentialType == sessionToken
	gives := r.PolicyDocument != "" || len(r.PolicyARNs) > 0 || len(r.IAMGroups) > 0
	return r, engine.Rules{
		{!user && !assumed && !session && r.CredentialType != federationToken,
			`credential_type is none of "iam_user", "assumed_role", "federation_token" and "session_token"`},
		{(len(r.RoleARNs) > 0) != assumed, "role_arns: credentials of type assumed_role have one or more, all others none"},
		{r.ExternalID != "" && !assumed, "external_id is for assumed_role"},
		{r.EndSessions && !assumed, "end_sessions is for assumed_role: no other session can be ended before its time"},
		{!user && (len(r.IAMGroups) > 0 || r.BoundaryARN != "" || r.UserPath != "" || len(r.IAMTags) > 0 || r.WaitUntilUsable),
			"iam_groups, permissions_boundary_arn, user_path, iam_tags and wait_until_usable are for iam_user"},
		{session && gives, "policy_arns and policy_document are not for session_token: it may do what root may, but for IAM"},
		{!gives && (user || r.CredentialType == federationToken), "the role gives nothing: name policy_arns or a policy_document"},
		{user && len(r.PolicyDocument)+len(endDocument(time.Time{})) > maxInline,
			"policy_document is too long: the inline policies of a user have 2,048 characters together, and the one that ends it in time is one of them; use policy_arns"},
		{!user && len(r.PolicyDocument)+len(strings.Join(r.PolicyARNs, "")) > maxSessionPolicy,
			"policy_document and policy_arns are too long: a session's have 2,048 characters together"},
	}.Check()
}

// checkNames refuses what cannot be the name of anything at the source.
func (r *role) checkNames() error {
	rules := engine.Rules{
		{len(r.PolicyARNs) > maxPolicies, "policy_arns has more than 10 entries"},
		{len(r.IAMGroups) > maxGroups, "iam_groups has more than 10 entries"},
		{len(r.RoleARNs) > maxRoles, "role_arns has more than 20 entries"},
		{len(r.IAMTags) > maxTags, "iam_tags has more than 47 entries: a user has 50, and 3 are ScaiVault's"},
		{r.BoundaryARN != "" && !isARN(r.BoundaryARN, "policy"), "permissions_boundary_arn is not the ARN of a policy"},
		{r.UserPath != "" && !pathForm.MatchString(r.UserPath), "user_path is not /scaivault/ or a path below it, which ends with /"},
		{r.ExternalID != "" && !isExternalID(r.ExternalID), "external_id is none: 2 to 1,224 letters, digits and _+=,.@:/-"},
	}
	for _, arn := range r.PolicyARNs {
		rules = append(rules, engine.Rules{{!isARN(arn, "policy"), "policy_arns holds what is not the ARN of a policy"}}...)
	}
	for _, arn := range r.RoleARNs {
		rules = append(rules, engine.Rules{{!isARN(arn, "role"), "role_arns holds what is not the ARN of a role"}}...)
	}
	for _, group := range r.IAMGroups {
		rules = append(rules, engine.Rules{{!groupForm.MatchString(group), "iam_groups holds what is not the name of a group"}}...)
	}
	for key, value := range r.IAMTags {
		rules = append(rules, engine.Rules{
			{key == "" || len(key) > 128 || len(value) > 256 || !tagForm.MatchString(key+value), "iam_tags holds a key or value that is none: letters, digits, spaces and _.:/=+@-"},
			{strings.HasPrefix(strings.ToLower(key), "aws:") || strings.HasPrefix(strings.ToLower(key), tagPrefix), "iam_tags holds a key that begins with aws: or scaivault:, which are not for roles"},
		}...)
	}
	return rules.Check()
}

// Bounds implements engine.Bounded. A session's end cannot be moved; a user's is a policy.
func (r *role) Bounds() engine.Bounds {
	switch r.CredentialType {
	case assumedRole:
		return engine.Bounds{Shortest: shortestSession, Longest: longestRole, Fixed: true}
	case federationToken, sessionToken:
		return engine.Bounds{Shortest: shortestSession, Longest: longestSession, Fixed: true}
	}
	return engine.Bounds{}
}
