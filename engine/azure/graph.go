package azure

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// What root needs at Microsoft Graph: application permissions, with an administrator's consent.
const (
	permitOwned  = "Application.ReadWrite.OwnedBy"
	permitAll    = "Application.ReadWrite.All"
	permitGroups = "GroupMember.ReadWrite.All"

	grantApplications = "the application permission " + permitOwned + " of Microsoft Graph, and root as an owner of the application, or " + permitAll
	grantGroups       = "the application permission " + permitGroups + " of Microsoft Graph"
)

// application is an application as Microsoft Graph shows it.
type application struct {
	ID          string     `json:"id"`
	AppID       string     `json:"appId"`
	DisplayName string     `json:"displayName"`
	Tags        []string   `json:"tags"`
	Passwords   []password `json:"passwordCredentials"`
}

// password is one of an application's passwords, without its text but where it was just made.
type password struct {
	Key         string     `json:"keyId"`
	DisplayName string     `json:"displayName"`
	Hint        string     `json:"hint"` // its first three characters
	Ends        *time.Time `json:"endDateTime"`
}

// newPassword is one that was just made: nobody is told it again.
type newPassword struct {
	Key  string           `json:"keyId"`
	Text statement.Secret `json:"secretText"`
}

const applicationFields = "id,appId,displayName,tags,passwordCredentials"

// application looks one up by its object id.
func (c *client) application(ctx context.Context, id string) (application, error) {
	var a application
	err := c.do(ctx, request{
		attempt: "look an application up", method: http.MethodGet,
		path: at("/v1.0/applications/"+url.PathEscape(id), "$select", applicationFields), grant: grantApplications,
	}, &a)
	if err == nil && a.ID != id {
		return a, misconfigured("look an application up: Microsoft Graph answers with another one", nil)
	}
	return a, err
}

// applications are those that a filter of OData finds; all of the tenant without one.
func (c *client) applications(ctx context.Context, filter string) ([]application, error) {
	query := []string{"$select", applicationFields, "$top", "100"}
	if filter != "" {
		query = append(query, "$filter", filter)
	}
	return list[application](ctx, c, request{
		attempt: "look for applications", path: at("/v1.0/applications", query...), grant: grantApplications,
	})
}

func (c *client) applicationsNamed(ctx context.Context, name string) ([]application, error) {
	return c.applications(ctx, "displayName eq "+quoted(name))
}

// createApplication makes one that nobody can use yet.
func (c *client) createApplication(ctx context.Context, name string, tags []string, notes string) (a application, err error) {
	err = c.do(failpoint.OnSending(ctx, failpoint.F3), request{
		attempt: issuing + ": make the application", method: http.MethodPost, path: "/v1.0/applications", grant: grantApplications,
		body: map[string]any{"displayName": name, "signInAudience": "AzureADMyOrg", "tags": tags, "notes": notes},
	}, &a)
	if err == nil && (!guid(a.ID) || !guid(a.AppID)) {
		err = uncertain(issuing+": make the application: the answer does not tell its ids", nil)
	}
	return a, err
}

// createPrincipal makes the service principal of an application; one that is there already is taken.
func (c *client) createPrincipal(ctx context.Context, appID string, tags []string) (id string, err error) {
	var made struct {
		ID string `json:"id"`
	}
	err = eventually(ctx, func() error {
		err := c.do(ctx, request{
			attempt: issuing + ": make the service principal", method: http.MethodPost, path: "/v1.0/servicePrincipals", grant: grantApplications,
			body: map[string]any{"appId": appID, "tags": tags},
		}, &made)
		var a *answer
		if errors.As(err, &a) && (a.status == http.StatusConflict || a.says("already in use")) {
			made.ID, err = c.principal(ctx, appID)
		}
		return err
	}, func(err error) bool { // the application is not known everywhere yet
		var a *answer
		return errors.As(err, &a) && (a.status == http.StatusNotFound || a.status == http.StatusBadRequest && (a.code == "NoBackingApplicationObject" || a.says("valid application object")))
	})
	if err == nil && !guid(made.ID) {
		err = uncertain(issuing+": make the service principal: the answer does not tell its id", nil)
	}
	return made.ID, err
}

// principal is the object id of an application's service principal; empty where there is none.
func (c *client) principal(ctx context.Context, appID string) (string, error) {
	found, err := list[struct {
		ID    string `json:"id"`
		AppID string `json:"appId"`
	}](ctx, c, request{
		attempt: "look for a service principal", grant: grantApplications,
		path: at("/v1.0/servicePrincipals", "$select", "id,appId", "$filter", "appId eq "+quoted(appID)),
	})
	if err != nil {
		return "", err
	}
	for _, p := range found {
		if p.AppID == appID {
			return p.ID, nil
		}
	}
	return "", nil
}

// addPassword gives an application one more password, that Microsoft makes.
func (c *client) addPassword(ctx context.Context, applicationID, displayName string, ends *time.Time) (made newPassword, err error) {
	wanted := map[string]any{"displayName": displayName}
	if ends != nil {
		wanted["endDateTime"] = ends.UTC().Format(time.RFC3339)
	}
	err = eventually(ctx, func() error {
		return c.do(ctx, request{
			attempt: "make a password", method: http.MethodPost, grant: grantApplications,
			path: "/v1.0/applications/" + url.PathEscape(applicationID) + "/addPassword", body: map[string]any{"passwordCredential": wanted},
		}, &made)
	}, notFound)
	if err == nil && (made.Text == "" || !guid(made.Key)) {
		err = uncertain("make a password: the answer does not hold it", nil)
	}
	return made, err
}

// removePassword ends a password; one that is gone is ended.
func (c *client) removePassword(ctx context.Context, applicationID, key string) error {
	err := c.do(ctx, request{
		attempt: "end a password", method: http.MethodPost, grant: grantApplications,
		path: "/v1.0/applications/" + url.PathEscape(applicationID) + "/removePassword", body: map[string]any{"keyId": key},
	}, nil)
	if notFound(err) {
		return nil
	}
	var a *answer
	if errors.As(err, &a) && a.status == http.StatusBadRequest { // so Graph says that there is none of the id
		now, err := c.application(ctx, applicationID)
		if notFound(err) || err == nil && !slices.ContainsFunc(now.Passwords, func(p password) bool { return p.Key == key }) {
			return nil
		}
	}
	return err
}

// delete deletes an object of the directory; one that is gone is deleted.
func (c *client) delete(ctx context.Context, attempt, path, grant string) error {
	err := c.do(ctx, request{attempt: attempt, method: http.MethodDelete, path: path, grant: grant}, nil)
	if notFound(err) {
		return nil
	}
	return err
}

// purge deletes an object from the recycle bin.
func (c *client) purge(ctx context.Context, id string) error {
	return c.do(ctx, request{
		attempt: "delete from the recycle bin", method: http.MethodDelete, path: "/v1.0/directory/deletedItems/" + url.PathEscape(id), grant: grantApplications,
	}, nil)
}

// deletedNamed are the applications of a name in the recycle bin.
func (c *client) deletedNamed(ctx context.Context, name string) ([]application, error) {
	return list[application](ctx, c, request{
		attempt: "look into the recycle bin", grant: grantApplications,
		path: at("/v1.0/directory/deletedItems/microsoft.graph.application", "$filter", "displayName eq "+quoted(name)),
	})
}

// addMember makes a principal a member of a group; one that is a member is.
func (c *client) addMember(ctx context.Context, group, principal string) error {
	return eventually(ctx, func() error {
		err := c.do(ctx, request{
			attempt: issuing + ": join a group", method: http.MethodPost, path: "/v1.0/groups/" + url.PathEscape(group) + "/members/$ref", grant: grantGroups,
			body: map[string]any{"@odata.id": c.cloud.graph + "/v1.0/directoryObjects/" + principal},
		}, nil)
		var a *answer
		if errors.As(err, &a) && a.status == http.StatusBadRequest && a.says("already exist") {
			return nil
		}
		return err
	}, notFound)
}

// removeMember ends a membership.
func (c *client) removeMember(ctx context.Context, group, principal string) error {
	return c.delete(ctx, "leave a group", "/v1.0/groups/"+url.PathEscape(group)+"/members/"+url.PathEscape(principal)+"/$ref", grantGroups)
}

// groupOf is a group of Microsoft Entra ID.
type groupOf struct {
	ID          string   `json:"id"`
	DisplayName string   `json:"displayName"`
	Types       []string `json:"groupTypes"`
	Synced      *bool    `json:"onPremisesSyncEnabled"`
	RoleBearing *bool    `json:"isAssignableToRole"`
}

const groupFields = "id,displayName,groupTypes,onPremisesSyncEnabled,isAssignableToRole"

func (c *client) groupByID(ctx context.Context, id string) (g groupOf, err error) {
	err = c.do(ctx, request{
		attempt: "look a group up", method: http.MethodGet, path: at("/v1.0/groups/"+url.PathEscape(id), "$select", groupFields), grant: grantGroups,
	}, &g)
	return g, err
}

func (c *client) groupsNamed(ctx context.Context, name string) ([]groupOf, error) {
	return list[groupOf](ctx, c, request{
		attempt: "look a group up", path: at("/v1.0/groups", "$select", groupFields, "$filter", "displayName eq "+quoted(name)), grant: grantGroups,
	})
}

// owners are the object ids of those who own an application.
func (c *client) owners(ctx context.Context, applicationID string) ([]string, error) {
	found, err := list[struct {
		ID string `json:"id"`
	}](ctx, c, request{
		attempt: "look for the owners of an application", path: at("/v1.0/applications/"+url.PathEscape(applicationID)+"/owners", "$select", "id"), grant: grantApplications,
	})
	var ids []string
	for _, o := range found {
		ids = append(ids, o.ID)
	}
	return ids, err
}
