package awstest

import (
	"net/url"
	"strings"
	"time"
)

// state is what the front must know of what went through it: moto does not tell it, or does not know.
type state struct {
	paths    map[string]string            // of users
	policies map[string]map[string]policy // inline, by "user/NAME" or "role/NAME", then by name
	managed  map[string]policy            // made by a test, by ARN
	attached map[string]map[string]bool   // ARNs, by "user/NAME" or "role/NAME"
	groups   map[string]int               // how many a user is in
	holders  map[string]*holder           // by access key
	roles    map[string]string            // ARNs, by name
}

// holder is who signs with a key.
type holder struct {
	keys     Keys
	user     string // empty for a session of a role
	role     string
	userID   string // of a session of a role
	arn      string // of a session that only the front knows
	ends     time.Time
	since    time.Time
	inactive bool
}

func newState() *state {
	return &state{paths: map[string]string{}, policies: map[string]map[string]policy{}, managed: map[string]policy{},
		attached: map[string]map[string]bool{}, groups: map[string]int{}, holders: map[string]*holder{}, roles: map[string]string{}}
}

func (s *state) user(name, path string) {
	if path == "" {
		path = "/"
	}
	s.paths[name] = path
}

func (s *state) put(owner, name, text string) {
	p, err := parsePolicy(text)
	if err != nil {
		return // moto refuses it
	}
	p.text = text
	if s.policies[owner] == nil {
		s.policies[owner] = map[string]policy{}
	}
	s.policies[owner][name] = p
}

func (s *state) key(user string, k Keys) {
	s.holders[k.ID] = &holder{keys: k, user: user, since: time.Now()}
}

// judge evaluates all that the front knows of a holder's policies. known is false where the holder has
// others, of which moto judges alone.
func (s *state) judge(h *holder, q question) (v verdict, known bool) {
	owner := "user/" + h.user
	if h.role != "" {
		owner = "role/" + h.role
	}
	q.userID = h.userID
	known = s.groups[h.user] == 0
	var all []policy
	for _, p := range s.policies[owner] {
		all = append(all, p)
	}
	for arn := range s.attached[owner] {
		p, ours := s.managed[arn]
		known = known && ours
		all = append(all, p)
	}
	for _, p := range all {
		v = max(v, p.judge(q))
	}
	return v, known
}

// resource is what a request is about. AWS knows the path of a user that is there; of one that is not
// it has only the name that it is asked for.
func (s *state) resource(form url.Values) string {
	name := form.Get("UserName")
	switch {
	case form.Get("Action") == "CreateUser":
		path := form.Get("Path")
		if path == "" {
			path = "/"
		}
		return arn("user" + path + name)
	case form.Get("Action") == "ListUsers":
		path := form.Get("PathPrefix")
		return arn("user" + path)
	case name != "":
		path := s.paths[name]
		if path == "" {
			path = "/"
		}
		return arn("user" + path + name)
	case form.Get("Action") == "GetFederationToken":
		return "arn:aws:sts::" + Account + ":federated-user/" + form.Get("Name")
	case form.Get("RoleArn") != "":
		return form.Get("RoleArn")
	case form.Get("RoleName") != "":
		return arn("role/" + form.Get("RoleName"))
	case form.Get("PolicyArn") != "":
		return form.Get("PolicyArn")
	case form.Get("GroupName") != "":
		return arn("group/" + form.Get("GroupName"))
	case form.Get("PolicySourceArn") != "":
		return form.Get("PolicySourceArn")
	}
	return "*"
}

func arn(rest string) string { return "arn:aws:iam::" + Account + ":" + rest }

// done notes what a request has changed at moto.
func (s *state) done(form url.Values, body []byte) {
	user, policyName, policyARN := form.Get("UserName"), form.Get("PolicyName"), form.Get("PolicyArn")
	switch form.Get("Action") {
	case "CreateUser":
		s.user(user, form.Get("Path"))
	case "DeleteUser":
		delete(s.paths, user)
		delete(s.groups, user)
	case "PutUserPolicy":
		s.put("user/"+user, policyName, form.Get("PolicyDocument"))
	case "DeleteUserPolicy":
		delete(s.policies["user/"+user], policyName)
	case "PutRolePolicy":
		s.put("role/"+form.Get("RoleName"), policyName, form.Get("PolicyDocument"))
	case "DeleteRolePolicy":
		delete(s.policies["role/"+form.Get("RoleName")], policyName)
	case "CreatePolicy":
		if p, err := parsePolicy(form.Get("PolicyDocument")); err == nil {
			s.managed[arn("policy/"+policyName)] = p
		}
	case "AttachUserPolicy":
		s.attach("user/"+user, policyARN)
	case "DetachUserPolicy":
		delete(s.attached["user/"+user], policyARN)
	case "AttachRolePolicy":
		s.attach("role/"+form.Get("RoleName"), policyARN)
	case "AddUserToGroup":
		s.groups[user]++
	case "RemoveUserFromGroup":
		s.groups[user]--
	case "CreateRole":
		path := form.Get("Path")
		if path == "" {
			path = "/"
		}
		s.roles[form.Get("RoleName")] = arn("role" + path + form.Get("RoleName"))
	case "CreateAccessKey":
		if k := readKey(body); k.ID != "" {
			s.key(user, k)
		}
	case "DeleteAccessKey":
		delete(s.holders, form.Get("AccessKeyId"))
	case "UpdateAccessKey":
		if h := s.holders[form.Get("AccessKeyId")]; h != nil {
			h.inactive = form.Get("Status") == "Inactive"
		}
	case "AssumeRole":
		role := form.Get("RoleArn")
		h := readSession(body)
		h.role = role[strings.LastIndex(role, "/")+1:]
		s.holders[h.keys.ID] = h
	}
}

func (s *state) attach(owner, arn string) {
	if s.attached[owner] == nil {
		s.attached[owner] = map[string]bool{}
	}
	s.attached[owner][arn] = true
}
