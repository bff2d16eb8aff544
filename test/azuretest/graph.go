package azuretest

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

var (
	readsApplications  = []string{"Application.Read.All", "Application.ReadWrite.All"}
	writesApplications = []string{"Application.ReadWrite.All"}
	writesGroups       = []string{"GroupMember.ReadWrite.All", "Group.ReadWrite.All"}
)

func (c *call) absent() {
	c.refuse(http.StatusNotFound, "Request_ResourceNotFound", "Resource does not exist or one of its queried reference-property objects are not present.")
}

func (s *Server) document(a *application) map[string]any {
	passwords := []map[string]any{}
	for _, p := range a.passwords {
		passwords = append(passwords, p.document(""))
	}
	return map[string]any{"id": a.id, "appId": a.appID, "displayName": a.name, "tags": listOf(a.tags), "notes": a.notes, "passwordCredentials": passwords}
}

func (p *password) document(text string) map[string]any {
	d := map[string]any{
		"keyId": p.key, "displayName": p.name, "hint": p.hint, "secretText": nil, "customKeyIdentifier": nil,
		"startDateTime": p.made.UTC().Format(time.RFC3339), "endDateTime": p.ends.UTC().Format(time.RFC3339),
	}
	if text != "" {
		d["secretText"] = text
	}
	return d
}

func listOf(texts []string) []string {
	if texts == nil {
		return []string{}
	}
	return texts
}

func (s *Server) listApplications(c *call) {
	if !c.may(true, readsApplications...) {
		return
	}
	name, byName := c.filtered("displayName")
	appID, byID := c.filtered("appId")
	if !byName && !byID && c.r.URL.Query().Get("$filter") != "" {
		c.refuse(http.StatusBadRequest, "Request_UnsupportedQuery", "The filter is not known here.")
		return
	}
	var found []map[string]any
	for _, a := range s.directory.applications {
		if s.shown(a.made, a.deleted) && (!byName || a.name == name) && (!byID || a.appID == appID) {
			found = append(found, s.document(a))
		}
	}
	c.page(found, "@odata.nextLink")
}

func (s *Server) createApplication(c *call) {
	var wanted struct {
		DisplayName string   `json:"displayName"`
		Tags        []string `json:"tags"`
		Notes       string   `json:"notes"`
	}
	if !c.may(true, writesApplications...) || !c.read(&wanted) {
		return
	}
	if wanted.DisplayName == "" || len(wanted.DisplayName) > 256 {
		c.refuse(http.StatusBadRequest, "Request_BadRequest", "Invalid value specified for property 'displayName'.")
		return
	}
	if s.full(c) {
		return
	}
	a := s.directory.addApplication(wanted.DisplayName, wanted.Tags, wanted.Notes, s.now())
	a.owners[c.who.principal] = true
	c.answer(http.StatusCreated, s.document(a))
}

// full refuses to make more than one principal may.
func (s *Server) full(c *call) bool {
	made := 0
	for _, a := range s.directory.applications {
		if a.owners[c.who.principal] {
			made++
		}
	}
	for _, p := range s.directory.principals {
		if p.owner == c.who.principal {
			made++
		}
	}
	if s.quota == 0 || made < s.quota {
		return false
	}
	c.refuse(http.StatusForbidden, "Directory_QuotaExceeded", "The directory object quota limit for the Principal has been exceeded.")
	return true
}

// application is the one that a path names; it is answered what is wrong where there is none.
func (s *Server) application(c *call) *application {
	a := s.directory.applications[c.values["application-id"]]
	if a == nil || !s.shown(a.made, a.deleted) {
		c.absent()
		return nil
	}
	return a
}

func (s *Server) getApplication(c *call) {
	if !c.may(true, readsApplications...) {
		return
	}
	if a := s.application(c); a != nil {
		c.answer(http.StatusOK, s.document(a))
	}
}

func (s *Server) deleteApplication(c *call) {
	a := s.application(c)
	if a == nil || !c.may(a.owners[c.who.principal], writesApplications...) {
		return
	}
	if a.deleted.IsZero() {
		s.delete(a)
	}
	c.answer(http.StatusNoContent, nil)
}

// delete moves an application to the recycle bin, and its principal with it.
func (s *Server) delete(a *application) {
	a.deleted = s.now()
	if p := s.directory.principalOf(a.appID); p != nil {
		s.end(p)
	}
}

// end deletes a principal. Its memberships end with it; its role assignments stay, and lead to nobody.
func (s *Server) end(p *principal) {
	p.deleted = s.now()
	for _, g := range s.directory.groups {
		delete(g.members, p.id)
	}
}

func (s *Server) addPassword(c *call) {
	var wanted struct {
		PasswordCredential struct {
			DisplayName string  `json:"displayName"`
			EndDateTime *string `json:"endDateTime"`
		} `json:"passwordCredential"`
	}
	a := s.application(c)
	if a == nil || !c.may(a.owners[c.who.principal], writesApplications...) || !c.read(&wanted) {
		return
	}
	if !a.deleted.IsZero() {
		c.absent()
		return
	}
	ends := s.now().AddDate(2, 0, 0)
	if text := wanted.PasswordCredential.EndDateTime; text != nil {
		var err error
		if ends, err = time.Parse(time.RFC3339, *text); err != nil || !ends.After(s.now()) {
			c.refuse(http.StatusBadRequest, "Request_BadRequest", "The end is no moment in the future.")
			return
		}
	}
	text, secret := newSecret()
	p := &password{key: newID(), name: wanted.PasswordCredential.DisplayName, hint: text[:3], text: secret, made: s.now(), ends: ends}
	a.passwords = append(slices.Clone(a.passwords), p)
	c.answer(http.StatusOK, p.document(text))
}

func (s *Server) removePassword(c *call) {
	var wanted struct {
		KeyID string `json:"keyId"`
	}
	a := s.application(c)
	if a == nil || !c.may(a.owners[c.who.principal], writesApplications...) || !c.read(&wanted) {
		return
	}
	left := slices.DeleteFunc(slices.Clone(a.passwords), func(p *password) bool { return p.key == wanted.KeyID })
	if len(left) == len(a.passwords) {
		c.refuse(http.StatusBadRequest, "Request_BadRequest", "No password credential found with keyId.")
		return
	}
	a.passwords = left
	c.answer(http.StatusNoContent, nil)
}

func (s *Server) listOwners(c *call) {
	if !c.may(true, readsApplications...) {
		return
	}
	a := s.application(c)
	if a == nil {
		return
	}
	var found []map[string]any
	for id := range a.owners {
		found = append(found, map[string]any{"id": id})
	}
	c.page(found, "@odata.nextLink")
}

func (s *Server) listPrincipals(c *call) {
	if !c.may(true, readsApplications...) {
		return
	}
	appID, ok := c.filtered("appId")
	if !ok {
		c.refuse(http.StatusBadRequest, "Request_UnsupportedQuery", "The filter is not known here.")
		return
	}
	var found []map[string]any
	for _, p := range s.directory.principals {
		if p.appID == appID && s.shown(p.made, p.deleted) {
			found = append(found, map[string]any{"id": p.id, "appId": p.appID, "tags": listOf(p.tags)})
		}
	}
	c.page(found, "@odata.nextLink")
}

func (s *Server) createPrincipal(c *call) {
	var wanted struct {
		AppID string   `json:"appId"`
		Tags  []string `json:"tags"`
	}
	if !c.read(&wanted) {
		return
	}
	a := s.directory.applicationOf(wanted.AppID)
	if a == nil || !s.shown(a.made, a.deleted) {
		c.refuse(http.StatusBadRequest, "NoBackingApplicationObject", "The appId of the service principal does not reference a valid application object.")
		return
	}
	if !c.may(a.owners[c.who.principal], writesApplications...) {
		return
	}
	if s.directory.principalOf(wanted.AppID) != nil {
		c.refuse(http.StatusConflict, "Request_MultipleObjectsWithSameKeyValue", "The service principal cannot be created because the service principal name is already in use.")
		return
	}
	if s.full(c) {
		return
	}
	p := s.directory.addPrincipal(wanted.AppID, wanted.Tags, s.now())
	p.owner = c.who.principal
	c.answer(http.StatusCreated, map[string]any{"id": p.id, "appId": p.appID, "tags": listOf(p.tags)})
}

func (s *Server) deletePrincipal(c *call) {
	p := s.directory.principals[c.values["servicePrincipal-id"]]
	if p == nil || !s.shown(p.made, p.deleted) {
		c.absent()
		return
	}
	if !c.may(p.owner == c.who.principal, writesApplications...) {
		return
	}
	if p.deleted.IsZero() {
		s.end(p)
	}
	c.answer(http.StatusNoContent, nil)
}

func (g *group) document() map[string]any {
	return map[string]any{"id": g.id, "displayName": g.name, "groupTypes": listOf(g.types), "onPremisesSyncEnabled": nil, "isAssignableToRole": nil}
}

func (s *Server) listGroups(c *call) {
	if !c.may(false, writesGroups...) {
		return
	}
	name, ok := c.filtered("displayName")
	if !ok {
		c.refuse(http.StatusBadRequest, "Request_UnsupportedQuery", "The filter is not known here.")
		return
	}
	var found []map[string]any
	for _, g := range s.directory.groups {
		if g.name == name {
			found = append(found, g.document())
		}
	}
	c.page(found, "@odata.nextLink")
}

func (s *Server) getGroup(c *call) {
	if !c.may(false, writesGroups...) {
		return
	}
	if g := s.directory.groups[c.values["group-id"]]; g != nil {
		c.answer(http.StatusOK, g.document())
		return
	}
	c.absent()
}

func (s *Server) addMember(c *call) {
	var wanted struct {
		ID string `json:"@odata.id"`
	}
	if !c.may(false, writesGroups...) || !c.read(&wanted) {
		return
	}
	g := s.directory.groups[c.values["group-id"]]
	id, ok := strings.CutPrefix(wanted.ID, "https://"+c.r.Host+"/v1.0/directoryObjects/")
	p := s.directory.principals[id]
	switch {
	case g == nil || !ok || p == nil || !p.deleted.IsZero() || !s.shown(p.made, p.deleted):
		c.absent()
	case slices.Contains(g.types, "DynamicMembership"):
		c.refuse(http.StatusBadRequest, "Request_BadRequest", "The group is dynamic.")
	case g.members[id]:
		c.refuse(http.StatusBadRequest, "Request_BadRequest", "One or more added object references already exist for the following modified properties: 'members'.")
	default:
		g.members[id] = true
		c.answer(http.StatusNoContent, nil)
	}
}

func (s *Server) removeMember(c *call) {
	if !c.may(false, writesGroups...) {
		return
	}
	g := s.directory.groups[c.values["group-id"]]
	if g == nil || !g.members[c.values["directoryObject-id"]] {
		c.absent()
		return
	}
	delete(g.members, c.values["directoryObject-id"])
	c.answer(http.StatusNoContent, nil)
}

// binned tells whether what was deleted has come to the recycle bin.
func (s *Server) binned(deleted time.Time) bool {
	return !deleted.IsZero() && !s.now().Before(deleted.Add(s.lag))
}

func (s *Server) listDeleted(c *call) {
	if !c.may(true, readsApplications...) {
		return
	}
	name, byName := c.filtered("displayName")
	var found []map[string]any
	for _, a := range s.directory.applications {
		if s.binned(a.deleted) && (!byName || a.name == name) {
			d := s.document(a)
			d["deletedDateTime"] = a.deleted.UTC().Format(time.RFC3339)
			found = append(found, d)
		}
	}
	c.page(found, "@odata.nextLink")
}

func (s *Server) purge(c *call) {
	id := c.values["directoryObject-id"]
	if a := s.directory.applications[id]; a != nil && s.binned(a.deleted) {
		if c.may(a.owners[c.who.principal], writesApplications...) {
			delete(s.directory.applications, id)
			c.answer(http.StatusNoContent, nil)
		}
		return
	}
	if p := s.directory.principals[id]; p != nil && s.binned(p.deleted) {
		if c.may(p.owner == c.who.principal, writesApplications...) {
			delete(s.directory.principals, id)
			c.answer(http.StatusNoContent, nil)
		}
		return
	}
	c.absent()
}
