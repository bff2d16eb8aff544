package azuretest

import (
	"net/http"
	"strings"
)

// The Azure CLI asks for more than the engine does, which is in none of the documents: it is answered as
// Microsoft's pages say. It believes a login endpoint that Microsoft's own does not know only where it ends
// with /adfs (Azure Stack), and finds the token endpoint in that one's description.

// LoginEndpoint is what the Azure CLI is given as --endpoint-active-directory.
func (s *Server) LoginEndpoint() string { return s.URL() + "/adfs" }

// HideSubscription answers so many times that there is none, as Azure does until a new role is known.
func (s *Server) HideSubscription(times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden = times
}

func (s *Server) describeLogin(w http.ResponseWriter) {
	answer(w, http.StatusOK, map[string]any{
		"issuer": s.LoginEndpoint(), "authorization_endpoint": s.LoginEndpoint() + "/oauth2/authorize",
		"token_endpoint": s.URL() + "/" + s.Tenant + "/oauth2/v2.0/token",
	})
}

// listSubscriptions shows the subscription to who has a role anywhere in it.
func (s *Server) listSubscriptions(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := s.caller(r, true)
	if who == nil {
		refuse(w, http.StatusUnauthorized, "InvalidAuthenticationToken", "The token is not valid.")
		return
	}
	found := []map[string]any{}
	for _, a := range s.directory.assignments {
		if a.principal == who.principal && strings.HasPrefix(strings.ToLower(a.scope), s.Scope()) && s.hidden == 0 {
			found = []map[string]any{{
				"id": s.Scope(), "subscriptionId": s.Subscription, "displayName": "tests", "state": "Enabled", "tenantId": s.Tenant,
			}}
		}
	}
	s.hidden = max(0, s.hidden-1)
	answer(w, http.StatusOK, map[string]any{"value": found})
}
