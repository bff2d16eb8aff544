package awstest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Admin is the client of who may do everything.
func (f *Front) Admin() *iam.Client {
	client, _ := f.server.Client(f.URL, f.server.admin)
	return client
}

// Clients are the official ones with keys.
func (f *Front) Clients(k Keys) (*iam.Client, *sts.Client) { return f.server.Client(f.URL, k) }

// User makes a user with an inline policy and a key.
func (f *Front) User(t TB, path, name, policy string) Keys {
	t.Helper()
	admin := f.Admin()
	_, err := admin.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name, Path: &path})
	if err == nil && policy != "" {
		_, err = admin.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &name, PolicyName: aws.String("root"), PolicyDocument: &policy})
	}
	if err != nil {
		t.Fatalf("make the user %s: %v", name, err)
	}
	made, err := admin.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		t.Fatalf("make a key of %s: %v", name, err)
	}
	return Keys{ID: *made.AccessKey.AccessKeyId, Secret: *made.AccessKey.SecretAccessKey}
}

// Permit gives a user an inline policy.
func (f *Front) Permit(t TB, user, name, policy string) {
	t.Helper()
	if _, err := f.Admin().PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &user, PolicyName: &name, PolicyDocument: &policy}); err != nil {
		t.Fatalf("give the user %s the policy %s: %v", user, name, err)
	}
}

// Role makes a role that everybody of the account may assume, with an inline policy; its ARN.
func (f *Front) Role(t TB, name, policy string) string {
	t.Helper()
	admin := f.Admin()
	const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + Account + `:root"},"Action":"sts:AssumeRole"}]}`
	made, err := admin.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(trust)})
	if err == nil {
		_, err = admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("role"), PolicyDocument: &policy})
	}
	if err != nil {
		t.Fatalf("make the role %s: %v", name, err)
	}
	return *made.Role.Arn
}

// Users are the names of all users.
func (f *Front) Users(t TB) []string {
	t.Helper()
	var names []string
	pages := iam.NewListUsersPaginator(f.Admin(), &iam.ListUsersInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatalf("list the users: %v", err)
		}
		for _, u := range page.Users {
			names = append(names, *u.UserName)
		}
	}
	return names
}

// Policy is an inline policy of a user as it was written, with the conditions that moto is not shown;
// empty where there is none.
func (s *Server) Policy(user, name string) []Condition {
	s.one.Lock()
	defer s.one.Unlock()
	var all []Condition
	for _, st := range s.state.policies["user/"+user][name].Statement {
		all = append(all, st.Condition)
	}
	return all
}

// RolePolicy tells whether a role has an inline policy of the name.
func (s *Server) RolePolicy(arn, name string) bool {
	s.one.Lock()
	defer s.one.Unlock()
	_, there := s.state.policies["role/"+arn[strings.LastIndex(arn, "/")+1:]][name]
	return there
}

// RolePolicies are the names of the inline policies of a role.
func (s *Server) RolePolicies(arn string) []string {
	s.one.Lock()
	defer s.one.Unlock()
	return slices.Collect(maps.Keys(s.state.policies["role/"+arn[strings.LastIndex(arn, "/")+1:]]))
}

// Ends is when the session of an access key ends by itself.
func (s *Server) Ends(key string) time.Time {
	s.one.Lock()
	defer s.one.Unlock()
	if h := s.state.holders[key]; h != nil {
		return h.ends
	}
	return time.Time{}
}

// Condition is that of a statement.
type Condition = map[string]map[string]list
