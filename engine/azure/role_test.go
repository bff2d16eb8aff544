package azure_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/azure"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/fault"
)

const someID = "11111111-2222-4333-8444-555555555555"

func TestConfig(t *testing.T) {
	t.Parallel()
	enginetest.Configs{
		Type: azure.Type{},
		Good: map[string]any{"tenant_id": someID, "root_credentials_path": "infra/root"},
		Refused: enginetest.Refusals{
			"no tenant":           {map[string]any{"tenant_id": ""}, "tenant_id is missing"},
			"tenant by name":      {map[string]any{"tenant_id": "example.onmicrosoft.com"}, "tenant_id"},
			"tenant in capitals":  {map[string]any{"tenant_id": strings.ToUpper("aaaaaaaa-2222-4333-8444-555555555555")}, "lower case"},
			"tenant with a path":  {map[string]any{"tenant_id": someID + "/../x"}, "tenant_id"},
			"subscription":        {map[string]any{"subscription_id": "prod"}, "subscription_id"},
			"environment":         {map[string]any{"environment": "germany"}, "environment"},
			"endpoint by http":    {map[string]any{"login_endpoint": "http://login.example.com"}, "login_endpoint"},
			"endpoint with path":  {map[string]any{"graph_endpoint": "https://graph.example.com/"}, "graph_endpoint"},
			"endpoint with user":  {map[string]any{"graph_endpoint": "https://root:hunter2@graph.example.com"}, "graph_endpoint"},
			"endpoint with query": {map[string]any{"graph_endpoint": "https://graph.example.com?x"}, "graph_endpoint"},
			"endpoint, fragment":  {map[string]any{"graph_endpoint": "https://graph.example.com#x"}, "graph_endpoint"},
			"endpoint, capitals":  {map[string]any{"resource_manager_endpoint": "https://ARM.example.com"}, "resource_manager_endpoint"},
			"endpoint, port 0":    {map[string]any{"resource_manager_endpoint": "https://arm.example.com:0"}, "resource_manager_endpoint"},
			"endpoint, no host":   {map[string]any{"resource_manager_endpoint": "https://:443"}, "resource_manager_endpoint"},
			"endpoint, backslash": {map[string]any{"resource_manager_endpoint": `https://a\b`}, "resource_manager_endpoint"},
			"tokens too long":     {map[string]any{"token_lifetime": "2d"}, "token_lifetime"},
			"username template":   {map[string]any{"username_template": "fixed"}, "random"},
		},
	}.Run(t)
	for environment, want := range map[string]string{
		"":                 "https://login.microsoftonline.com/" + someID + " https://graph.microsoft.com https://management.azure.com",
		"usgovernment":     "https://login.microsoftonline.us/" + someID + " https://graph.microsoft.us https://management.usgovcloudapi.net",
		"usgovernment-dod": "https://login.microsoftonline.us/" + someID + " https://dod-graph.microsoft.us https://management.usgovcloudapi.net",
		"china":            "https://login.chinacloudapi.cn/" + someID + " https://microsoftgraph.chinacloudapi.cn https://management.chinacloudapi.cn",
	} {
		c, err := (azure.Type{}).ParseConfig(json.RawMessage(`{"tenant_id": "` + someID + `", "root_credentials_path": "x", "environment": "` + environment + `"}`))
		if err != nil || c.Endpoint != want {
			t.Errorf("%s: %s, %v", environment, c.Endpoint, err)
		}
	}
	c, err := (azure.Type{}).ParseConfig(json.RawMessage(`{"tenant_id": "` + someID + `", "root_credentials_path": "x", "login_endpoint": "https://[::1]:8443"}`))
	if err != nil || !strings.HasPrefix(c.Endpoint, "https://[::1]:8443/") {
		t.Errorf("an endpoint by IPv6: %s, %v", c.Endpoint, err)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	const subscription = "/subscriptions/" + someID
	for _, document := range []string{
		`{"azure_roles": [{"role_name": "Storage Blob Data Reader"}]}`,
		`{"azure_roles": [{"role_id": "` + someID + `", "scope": "` + subscription + `"}]}`,
		`{"azure_roles": [{"role_id": "` + subscription + `/providers/Microsoft.Authorization/roleDefinitions/` + someID + `", "scope": "` + subscription + `/resourceGroups/my_group.(1)"}]}`,
		`{"azure_roles": [{"role_name": "Reader", "scope": "` + subscription + `/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/data/blobServices/default"}]}`,
		`{"azure_roles": [{"role_name": "Reader", "scope": "/providers/Microsoft.Management/managementGroups/root"}]}`,
		`{"azure_groups": ["` + someID + `", "Readers of 'things'"], "permanently_delete": true}`,
		`{"application_object_id": "` + someID + `"}`,
	} {
		r, err := (azure.Type{}).ParseRole(json.RawMessage(document))
		if err != nil {
			t.Errorf("%s: %v", document, err)
		} else if !r.(engine.Bounded).Bounds().Fixed {
			t.Errorf("%s: its leases are renewable", document)
		}
	}
	for _, document := range []string{
		`{}`, `{"azure_rolls": []}`, `{"azure_roles": []}`,
		`{"azure_roles": [{}]}`,
		`{"azure_roles": [{"role_name": "Reader", "role_id": "` + someID + `"}]}`,
		`{"azure_roles": [{"role_id": "Reader"}]}`,
		`{"azure_roles": [{"role_id": "/roleDefinitions/x"}]}`,
		`{"azure_roles": [{"role_name": " Reader"}]}`,
		`{"azure_groups": [""]}`, `{"azure_groups": ["a\u0000b"]}`,
		`{"application_object_id": "x"}`,
		`{"application_object_id": "` + someID + `", "azure_groups": ["x"]}`,
		`{"application_object_id": "` + someID + `", "permanently_delete": true}`,
	} {
		if _, err := (azure.Type{}).ParseRole(json.RawMessage(document)); fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("%s: %v", document, err)
		}
	}
	for _, scope := range []string{
		"/", "subscriptions/" + someID, subscription + "/", "/subscriptions/x", "/subscriptions/" + strings.ToUpper("a"+someID[1:]),
		subscription + "/resourceGroups", subscription + "/resourceGroups/", subscription + "/resourceGroups/..", subscription + "/resourceGroups/.",
		subscription + "/resourcegroups/rg", subscription + "//resourceGroups/rg", subscription + "/resourceGroups/a b", subscription + "/resourceGroups/a%2fb",
		subscription + "/resourceGroups/rg?x=1", subscription + "/resourceGroups/rg#", subscription + "/resourceGroups/rg/providers/Microsoft.Storage",
		subscription + "/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts", subscription + "/resourceGroups/rg/providers/x/y/z",
		subscription + "/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/..", "/providers/Microsoft.Management/managementGroups/..",
		subscription + "/providers/Microsoft.Authorization/roleAssignments/x", "/providers/Microsoft.Management/managementGroups/a/b",
	} {
		if _, err := (azure.Type{}).ParseRole(json.RawMessage(`{"azure_roles": [{"role_name": "Reader", "scope": "` + scope + `"}]}`)); fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("scope %s: %v", scope, err)
		}
	}
}

// FuzzScope: no scope that is taken leads a request to another place than it names.
func FuzzScope(f *testing.F) {
	f.Add("/subscriptions/" + someID + "/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/data")
	f.Fuzz(func(t *testing.T, scope string) {
		raw, err := json.Marshal(map[string]any{"azure_roles": []map[string]string{{"role_name": "Reader", "scope": scope}}})
		if err != nil {
			return // no text of a document
		}
		if _, err := (azure.Type{}).ParseRole(raw); err != nil || scope == "" {
			return
		}
		if strings.Contains(scope, "/../") || strings.Contains(scope, "//") || strings.ContainsAny(scope, "?#%\\ \x00") || !strings.HasPrefix(scope, "/") {
			t.Errorf("%q is taken", scope)
		}
	})
}
