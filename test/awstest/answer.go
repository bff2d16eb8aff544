package awstest

import (
	"bytes"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// keyAnswer is what CreateAccessKey answers.
type keyAnswer struct {
	ID     string `xml:"CreateAccessKeyResult>AccessKey>AccessKeyId"`
	Secret string `xml:"CreateAccessKeyResult>AccessKey>SecretAccessKey"`
}

func readKey(body []byte) Keys {
	var a keyAnswer
	if xml.Unmarshal(body, &a) != nil {
		return Keys{}
	}
	return Keys{ID: a.ID, Secret: a.Secret}
}

// readSession reads what AssumeRole answers.
func readSession(body []byte) *holder {
	var a struct {
		Result struct {
			Credentials struct {
				AccessKeyID     string    `xml:"AccessKeyId"`
				SecretAccessKey string    `xml:"SecretAccessKey"`
				SessionToken    string    `xml:"SessionToken"`
				Expiration      time.Time `xml:"Expiration"`
			} `xml:"Credentials"`
			UserID string `xml:"AssumedRoleUser>AssumedRoleId"`
		} `xml:"AssumeRoleResult"`
	}
	if xml.Unmarshal(body, &a) != nil {
		return &holder{}
	}
	c := a.Result.Credentials
	return &holder{keys: Keys{c.AccessKeyID, c.SecretAccessKey, c.SessionToken}, userID: a.Result.UserID, ends: c.Expiration, since: time.Now()}
}

// answer is what a front writes.
type answer struct {
	status int
	body   []byte
}

func refusal(status int, code, format string, args ...any) answer {
	return answer{status, fmt.Appendf(nil, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>%s</RequestId></ErrorResponse>",
		code, escape(fmt.Sprintf(format, args...)), rand.Text())}
}

func result(action, inner string) answer {
	return answer{http.StatusOK, fmt.Appendf(nil, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>%[3]s</RequestId></ResponseMetadata></%[1]sResponse>",
		action, inner, rand.Text())}
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a builder takes everything
	return b.String()
}

// ending is what AssumeRole answers, with another end of the session.
func ending(body []byte, at time.Time) []byte {
	before, rest, _ := bytes.Cut(body, []byte("<Expiration>"))
	_, after, _ := bytes.Cut(rest, []byte("</Expiration>"))
	return fmt.Appendf(nil, "%s<Expiration>%s</Expiration>%s", before, at.UTC().Format(time.RFC3339), after)
}

// mint makes a session of the kinds that moto knows one of. life takes the place of the one that was asked for,
// unless it is zero.
func (s *state) mint(by *holder, form url.Values, life time.Duration) answer {
	var seconds int
	if _, err := fmt.Sscan(form.Get("DurationSeconds"), &seconds); err != nil || seconds < 900 || seconds > 36*3600 {
		return refusal(http.StatusBadRequest, "ValidationError", "Value at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 129600")
	}
	if life == 0 {
		life = time.Duration(seconds) * time.Second
	}
	h := &holder{keys: Keys{"ASIA" + rand.Text()[:16], rand.Text(), rand.Text()}, user: by.user, since: time.Now(),
		ends: time.Now().Add(life).Truncate(time.Second), arn: arn("user" + s.paths[by.user] + by.user)}
	federated := ""
	if form.Get("Action") == "GetFederationToken" {
		h.arn = "arn:aws:sts::" + Account + ":federated-user/" + form.Get("Name")
		federated = "<FederatedUser><Arn>" + h.arn + "</Arn><FederatedUserId>" + Account + ":" + form.Get("Name") + "</FederatedUserId></FederatedUser>"
	}
	s.holders[h.keys.ID] = h
	return result(form.Get("Action"), fmt.Sprintf("<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>%s",
		h.keys.ID, h.keys.Secret, h.keys.Token, h.ends.UTC().Format(time.RFC3339), federated))
}

// simulate answers SimulatePrincipalPolicy by the front's own judgement.
func (s *state) simulate(form url.Values) answer {
	source := form.Get("PolicySourceArn")
	name := source[strings.LastIndex(source, "/")+1:]
	h := &holder{user: name}
	if strings.Contains(source, ":role/") {
		h = &holder{role: name}
	}
	var all strings.Builder
	for i := 1; form.Has(fmt.Sprintf("ActionNames.member.%d", i)); i++ {
		action := form.Get(fmt.Sprintf("ActionNames.member.%d", i))
		decision := "implicitDeny"
		switch v, _ := s.judge(h, question{action: action, resource: form.Get("ResourceArns.member.1"), now: time.Now()}); v {
		case allowed:
			decision = "allowed"
		case denied:
			decision = "explicitDeny"
		case silent:
		}
		all.WriteString("<member><EvalActionName>" + escape(action) + "</EvalActionName><EvalDecision>" + decision + "</EvalDecision></member>")
	}
	return result("SimulatePrincipalPolicy", "<EvaluationResults>"+all.String()+"</EvaluationResults><IsTruncated>false</IsTruncated>")
}

// written answers GetUserPolicy with what moto was not shown.
func (s *state) written(form url.Values) answer {
	user, name := form.Get("UserName"), form.Get("PolicyName")
	p, there := s.policies["user/"+user][name]
	if !there {
		return refusal(http.StatusNotFound, "NoSuchEntity", "The user policy with name %s cannot be found.", name)
	}
	return result("GetUserPolicy", "<UserName>"+escape(user)+"</UserName><PolicyName>"+escape(name)+"</PolicyName><PolicyDocument>"+url.QueryEscape(p.text)+"</PolicyDocument>")
}
