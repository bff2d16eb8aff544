package awstest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is what happens to one request.
type Fault int

// The faults.
const (
	None       Fault = iota
	Throttle         // AWS asks to slow down; nothing is done
	Fail             // AWS fails before it does anything
	FailAfter        // AWS fails after it has done it
	LoseBefore       // the connection breaks, nothing is done
	LoseAfter        // the connection breaks when it is done
	Conflict         // it cannot be deleted for what it has
)

// Front is the way to a server that one test has for itself.
type Front struct {
	URL  string
	Addr string

	server *Server
	http   *httptest.Server

	mu    sync.Mutex
	fault func(action string) Fault
	lag   lag
	life  time.Duration
	web   webIdentity
}

// lag is how long a key that was made after a moment is refused.
type lag struct {
	after time.Time
	lasts time.Duration
}

// Front opens a way to the server until the end of the test.
func (s *Server) Front(t TB) *Front {
	t.Helper()
	f := &Front{server: s}
	f.http = httptest.NewServer(f)
	f.URL, f.Addr = f.http.URL, f.http.Listener.Addr().String()
	t.Cleanup(f.http.Close)
	return f
}

// SetFault gives what is asked for each request what happens to it; nil for nothing.
func (f *Front) SetFault(fault func(action string) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// SetLag makes keys that are made from now on be refused for so long after.
func (f *Front) SetLag(lasts time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lag = lag{time.Now(), lasts}
}

// SetLife makes sessions that are made from now on end after so long, whatever was asked for: STS makes none
// of less than fifteen minutes, for which no test waits.
func (f *Front) SetLife(life time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life = life
}

func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	form, malformed := url.ParseQuery(string(body))
	if err != nil || malformed != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	action := form.Get("Action")
	f.mu.Lock()
	fault, late, life := None, f.lag, f.life
	if f.fault != nil {
		fault = f.fault(action)
	}
	f.mu.Unlock()
	var out answer
	switch fault {
	case Throttle:
		out = refusal(http.StatusBadRequest, "Throttling", "Rate exceeded")
	case Fail:
		out = refusal(http.StatusInternalServerError, "ServiceFailure", "try again")
	case Conflict:
		out = refusal(http.StatusConflict, "DeleteConflict", "Cannot delete entity, must detach all first.")
	case LoseBefore:
		drop(w)
		return
	case None, FailAfter, LoseAfter:
		if action == "AssumeRoleWithWebIdentity" {
			out = f.assumeByWeb(r, form.Get("RoleArn"), form.Get("RoleSessionName"), form.Get("WebIdentityToken"))
			break
		}
		out = f.server.handle(r, body, form, late, life)
	}
	switch fault {
	case LoseAfter:
		drop(w)
		return
	case FailAfter:
		out = refusal(http.StatusInternalServerError, "ServiceFailure", "try again")
	case None, Throttle, Fail, LoseBefore, Conflict:
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body) // who has gone needs no answer
}

// drop breaks the connection without an answer.
func drop(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// Session tells whether somebody holds a session of a role by this name who may do anything.
func (s *Server) Session(name string) bool {
	s.one.Lock()
	defer s.one.Unlock()
	for _, h := range s.state.holders {
		if !strings.HasSuffix(h.userID, ":"+name) || time.Now().After(h.ends) {
			continue
		}
		if v, _ := s.state.judge(h, question{action: "any:Thing", resource: "*", now: time.Now()}); v != denied {
			return true
		}
	}
	return false
}

const signatureLife = 5 * time.Minute

// handle answers one request, one at a time.
func (s *Server) handle(r *http.Request, body []byte, form url.Values, late lag, life time.Duration) answer {
	s.one.Lock()
	defer s.one.Unlock()
	s.log.add(form)
	h, who, out := s.authenticate(r, body, late)
	if h == nil {
		return out
	}
	action := form.Get("Action")
	name := strings.Split(who.scope, "/")[2] + ":" + action
	if action != "GetCallerIdentity" && action != "GetSessionToken" { // for which nobody needs a right
		switch v, known := s.state.judge(h, question{action: name, resource: s.state.resource(form), now: time.Now()}); {
		case v == denied, v == silent && known:
			return refusal(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: %s on resource: %s", h.user+h.role, name, s.state.resource(form))
		}
	}
	switch {
	case (action == "GetSessionToken" || action == "GetFederationToken") && h.keys.Token != "":
		return refusal(http.StatusForbidden, "AccessDenied", "Cannot call %s with session credentials", action)
	case action == "GetSessionToken" || action == "GetFederationToken":
		return s.state.mint(h, form, life)
	case action == "SimulatePrincipalPolicy":
		return s.state.simulate(form)
	case action == "GetUserPolicy":
		return s.state.written(form)
	case action == "GetCallerIdentity" && h.arn != "":
		return result(action, "<Arn>"+h.arn+"</Arn><UserId>"+h.user+"</UserId><Account>"+Account+"</Account>")
	case h.arn != "":
		return refusal(http.StatusForbidden, "AccessDenied", "the front knows no more of this session")
	case action == "DeleteUser" && s.state.groups[form.Get("UserName")] > 0:
		return refusal(http.StatusConflict, "DeleteConflict", "Cannot delete entity, must remove users from group first.")
	case action == "AssumeRole":
		if out, ok := s.mayAssume(form, h.keys.Token != ""); !ok {
			return out
		}
	}
	out = s.forward(r, who, h, body, form)
	if out.status == http.StatusOK {
		if action == "AssumeRole" && life > 0 {
			out.body = ending(out.body, time.Now().Add(life))
		}
		s.state.done(form, out.body)
	}
	return out
}

// authenticate finds who has signed a request; nil and why not.
func (s *Server) authenticate(r *http.Request, body []byte, late lag) (*holder, signed, answer) {
	who, ok := readSigned(r)
	if !ok {
		return nil, who, refusal(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	now := time.Now()
	if now.Sub(who.at).Abs() > signatureLife {
		return nil, who, refusal(http.StatusForbidden, "SignatureDoesNotMatch", "Signature expired: %s is now earlier than %s (%s - 5 min.)",
			who.at.Format("20060102T150405Z"), now.Add(-signatureLife).UTC().Format("20060102T150405Z"), now.UTC().Format("20060102T150405Z"))
	}
	h := s.state.holders[who.key]
	switch {
	case h == nil, h.inactive, h.since.After(late.after) && now.Sub(h.since) < late.lasts, h.arn != "" && s.state.paths[h.user] == "":
		return nil, who, refusal(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
	case h.keys.Token != r.Header.Get("X-Amz-Security-Token"):
		return nil, who, refusal(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
	case !h.ends.IsZero() && now.After(h.ends):
		return nil, who, refusal(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
	case who.sign(r, strconv.Itoa(len(body)), body, h.keys.Secret) != who.signature:
		return nil, who, refusal(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
	}
	return h, who, answer{}
}

func (s *Server) mayAssume(form url.Values, chained bool) (answer, bool) {
	role := form.Get("RoleArn")
	seconds, err := strconv.Atoi(form.Get("DurationSeconds"))
	if s.state.roles[role[strings.LastIndex(role, "/")+1:]] != role {
		return refusal(http.StatusForbidden, "AccessDenied", "User is not authorized to perform: sts:AssumeRole on resource: %s", role), false
	} else if err != nil || seconds < 900 || seconds > 12*3600 {
		return refusal(http.StatusBadRequest, "ValidationError", "1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint", seconds), false
	} else if chained && seconds > 3600 {
		return refusal(http.StatusBadRequest, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."), false
	}
	return answer{}, true
}

// forward lets moto do it: with the policy that moto is to see, signed anew.
func (s *Server) forward(r *http.Request, who signed, h *holder, body []byte, form url.Values) answer {
	if text := form.Get("PolicyDocument"); text != "" {
		if p, err := parsePolicy(text); err == nil {
			rewritten := url.Values{}
			for name, values := range form {
				rewritten[name] = values
			}
			rewritten.Set("PolicyDocument", p.hidden())
			body = []byte(rewritten.Encode())
		}
	}
	// What has arrived is done, whether or not anybody still waits for the answer.
	out, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), http.MethodPost, "http://"+s.address+"/", bytes.NewReader(body))
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	out.Header = r.Header.Clone()
	out.Host = r.Host
	length := strconv.Itoa(len(body))
	out.Header.Set("Content-Length", length)
	out.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), who.signature, who.sign(r, length, body, h.keys.Secret), 1))
	got, err := s.client.Do(out)
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	if got.StatusCode >= http.StatusBadRequest {
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("<Errors>"), nil), []byte("</Errors>"), nil)
	}
	return answer{got.StatusCode, text}
}
