package azure

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/duration"
)

const (
	// defaultOperationTimeout: Azure takes its time until what was made is known everywhere.
	defaultOperationTimeout = time.Minute
	// defaultTokenLifetime is the longest that an access token lives where the tenant has no policy
	// about it: Microsoft draws from 60 to 90 minutes.
	defaultTokenLifetime = 90 * time.Minute
	maxTokenLifetime     = 24 * time.Hour // the most that a policy of a tenant can say
)

// config is the engine's part of a configuration, as docs/engines/azure.md describes it.
type config struct {
	engine.Settings
	engine.TLS
	TenantID                string            `json:"tenant_id"`
	SubscriptionID          string            `json:"subscription_id"`
	Environment             string            `json:"environment"`
	LoginEndpoint           string            `json:"login_endpoint"`
	GraphEndpoint           string            `json:"graph_endpoint"`
	ResourceManagerEndpoint string            `json:"resource_manager_endpoint"`
	TokenLifetime           duration.Duration `json:"token_lifetime"`

	cloud cloud // where Environment and the endpoints lead
}

// cloud is where the three services are, and for what their tokens are made out.
type cloud struct {
	login, graph, arm    string // endpoints
	graphScope, armScope string
}

// environments are Microsoft's clouds.
func environments(name string) (cloud, bool) {
	c := map[string]cloud{
		"public":           {login: "https://login.microsoftonline.com", graph: "https://graph.microsoft.com", arm: "https://management.azure.com"},
		"usgovernment":     {login: "https://login.microsoftonline.us", graph: "https://graph.microsoft.us", arm: "https://management.usgovcloudapi.net"},
		"usgovernment-dod": {login: "https://login.microsoftonline.us", graph: "https://dod-graph.microsoft.us", arm: "https://management.usgovcloudapi.net"},
		"china":            {login: "https://login.chinacloudapi.cn", graph: "https://microsoftgraph.chinacloudapi.cn", arm: "https://management.chinacloudapi.cn"},
	}
	found, ok := c[name]
	found.graphScope, found.armScope = found.graph+"/.default", found.arm+"/.default"
	return found, ok
}

// parseConfig decodes and checks; after it every optional field has its value.
func parseConfig(raw json.RawMessage) (*config, error) {
	c := &config{}
	if err := engine.Decode(raw, c); err != nil {
		return nil, err
	}
	if c.OperationTimeout == 0 {
		c.OperationTimeout = duration.Duration(defaultOperationTimeout)
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = duration.Duration(defaultTokenLifetime)
	}
	if c.Environment == "" {
		c.Environment = "public"
	}
	if err := c.Complete(typeName); err != nil {
		return nil, err
	}
	if _, err := c.NameTemplate(maxNameBytes); err != nil {
		return nil, err
	}
	environment, known := environments(c.Environment)
	c.cloud = environment
	if err := (engine.Rules{
		{!known, "environment is none of public, usgovernment, usgovernment-dod and china"},
		{c.TenantID == "", "tenant_id is missing"},
		{!guid(c.TenantID), "tenant_id is no id of the form 00000000-0000-0000-0000-000000000000, in lower case"},
		{c.SubscriptionID != "" && !guid(c.SubscriptionID), "subscription_id is no id of the form 00000000-0000-0000-0000-000000000000, in lower case"},
		{c.TokenLifetime.Std() > maxTokenLifetime, "token_lifetime is longer than 24h, the most that Microsoft Entra ID gives"},
	}).Check(); err != nil {
		return nil, err
	}
	for _, override := range []struct {
		field string
		given string
		into  *string
	}{
		{"login_endpoint", c.LoginEndpoint, &c.cloud.login},
		{"graph_endpoint", c.GraphEndpoint, &c.cloud.graph},
		{"resource_manager_endpoint", c.ResourceManagerEndpoint, &c.cloud.arm},
	} {
		if override.given == "" {
			continue
		}
		if !origin(override.given) {
			return nil, engine.Invalid("%s is not of the form https://host or https://host:port, in lower case and with nothing after it", override.field)
		}
		*override.into = override.given
	}
	return c, nil
}

var hostForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$|^\[[0-9a-f:.]{2,39}\]$`)

// origin tells whether text is https, a host, and perhaps a port: nothing that two readers could take
// for two hosts.
func origin(text string) bool {
	u, err := url.Parse(text)
	if err != nil || text != "https://"+u.Host {
		return false
	}
	host := u.Host
	if at := strings.LastIndexByte(host, ':'); at > strings.LastIndexByte(host, ']') {
		port := host[at+1:]
		host = host[:at]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return false
		}
	}
	return len(host) <= 253 && hostForm.MatchString(host)
}

var guidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// guid tells whether text is an id in the one form that is the same for all readers.
func guid(text string) bool { return guidForm.MatchString(text) }

// endpoint is where the root secret is sent, and who is given what it makes.
func (c *config) endpoint() string {
	return strings.Join([]string{c.cloud.login + "/" + c.TenantID, c.cloud.graph, c.cloud.arm}, " ")
}

// sourceID is the identity of the source: a tenant is one, wherever it is asked.
func (c *config) sourceID() string {
	if c.SourceID != "" {
		return c.SourceID
	}
	return c.Environment + "/" + c.TenantID
}
