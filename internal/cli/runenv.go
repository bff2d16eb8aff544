package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/client"
)

// connection is what a command needs to use a credential.
type connection struct {
	plugin string            // the kind of source; empty where the caller may not read the engine
	fields map[string]string // of the credential, and of its source as far as it is known
}

func connectionOf(ctx context.Context, c *client.Client, lease *client.Lease) connection {
	n := connection{fields: map[string]string{}}
	var config struct {
		Plugin        string `json:"plugin"`
		ConnectionURL string `json:"connection_url"`
		Region        string `json:"region"`
	}
	engine, err := c.Engine(ctx, lease.Engine)
	if err == nil && json.Unmarshal(engine.Config, &config) == nil {
		n.plugin = first(config.Plugin, engine.Type)
		maps.Copy(n.fields, sourceFields(config.ConnectionURL))
	}
	if config.Region != "" {
		n.fields["region"] = config.Region
	}
	maps.Copy(n.fields, lease.Data())
	n.fields["lease_id"] = lease.ID
	if _, session := n.fields["session_token"]; !session && n.fields["access_key_id"] != "" {
		n.fields["session_token"] = "" // hides the one that run itself may have been given
	}
	if n.plugin == "mongodb" {
		n.fields["uri"] = mongodbURI(config.ConnectionURL, n.fields)
	}
	return n
}

// usual are the variables that the programs of a kind of source expect, each with
// the field that it holds.
func usual(plugin string) map[string]string {
	switch plugin {
	case "postgresql":
		return map[string]string{
			"PGUSER": "username", "PGPASSWORD": "password", "PGHOST": "host",
			"PGPORT": "port", "PGDATABASE": "database", "PGSSLMODE": "sslmode",
		}
	case "mysql": // mysql, mariadb and mysqldump read no variable with a user's name
		return map[string]string{
			"MYSQL_USER": "username", "MYSQL_PWD": "password", "MYSQL_HOST": "host", "MYSQL_TCP_PORT": "port", "MYSQL_DATABASE": "database",
		}
	case "redis": // redis-cli itself reads the password alone
		return map[string]string{
			"REDISCLI_AUTH": "password", "REDIS_USERNAME": "username", "REDIS_PASSWORD": "password",
			"REDIS_HOST": "host", "REDIS_PORT": "port", "REDIS_TLS": "tls",
		}
	case "aws":
		return map[string]string{
			"AWS_ACCESS_KEY_ID": "access_key_id", "AWS_SECRET_ACCESS_KEY": "secret_access_key", "AWS_SESSION_TOKEN": "session_token",
			"AWS_REGION": "region",
		}
	case "gcp":
		// A key is a file: the first name is what Google's libraries and Terraform read, the second what gcloud
		// does, which ignores the first (https://docs.cloud.google.com/sdk/docs/authenticate). A token is read by
		// gcloud, and by Terraform (https://registry.terraform.io/providers/hashicorp/google/latest/docs/guides/provider_reference);
		// the libraries have no variable for one (https://github.com/googleapis/google-auth-library-python/issues/1165).
		return map[string]string{
			"GOOGLE_APPLICATION_CREDENTIALS": "key_file", "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE": "key_file",
			"CLOUDSDK_AUTH_ACCESS_TOKEN": "access_token", "GOOGLE_OAUTH_ACCESS_TOKEN": "access_token",
		}
	case "azure":
		// The first three as the libraries of Microsoft read them, and kubelogin
		// (https://azure.github.io/kubelogin/concepts/login-modes/sp.html); the others as Terraform does
		// (https://registry.terraform.io/providers/hashicorp/azurerm/latest/docs/guides/service_principal_client_secret).
		return map[string]string{
			"AZURE_CLIENT_ID": "client_id", "AZURE_CLIENT_SECRET": "client_secret", "AZURE_TENANT_ID": "tenant_id",
			"ARM_CLIENT_ID": "client_id", "ARM_CLIENT_SECRET": "client_secret", "ARM_TENANT_ID": "tenant_id",
		}
	case "mongodb": // its programs read nothing by themselves, and all take a URI
		return map[string]string{"MONGODB_URI": "uri"}
	}
	return nil
}

// mongodbURI is the connection URL with the credential in it, and with the database that this logs in
// against in the place of root's.
func mongodbURI(connectionURL string, credential map[string]string) string {
	scheme, rest, _ := strings.Cut(connectionURL, "://")
	rest, query, _ := strings.Cut(rest, "?")
	_, hosts, _ := strings.Cut(rest, "@")
	hosts, _, _ = strings.Cut(hosts, "/")
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return ""
	}
	parameters.Set("authSource", credential["database"])
	return scheme + "://" + url.UserPassword(credential["username"], credential["password"]).String() + "@" + hosts + "/?" + parameters.Encode()
}

// kind is the kind of source. A user name with a password from an engine that may not
// be read is taken for PostgreSQL's, an access key for one of AWS, a service account
// for Google's, a tenant for one of Azure.
func (n connection) kind() string {
	switch {
	case n.plugin != "":
		return n.plugin
	case n.fields["password"] != "":
		return "postgresql"
	case n.fields["access_key_id"] != "":
		return "aws"
	case n.fields["service_account_email"] != "":
		return "gcp"
	case n.fields["tenant_id"] != "":
		return "azure"
	}
	return ""
}

// rivals are variables that would let the command log in as somebody else: gcloud takes a token before the
// file with a key, and Terraform what names its credentials before Google's own variable.
func (n connection) rivals() []string {
	if n.kind() != "gcp" {
		return nil
	}
	return []string{
		"CLOUDSDK_AUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE",
		"GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON",
		"GOOGLE_APPLICATION_CREDENTIALS",
	}
}

// environment gives the command its variables: those asked for, else those that
// the source's own programs expect.
func (n connection) environment(mapping map[string]string) ([]string, error) {
	asked := len(mapping) > 0
	if !asked {
		mapping = usual(n.kind())
	}
	var variables []string
	for _, name := range slices.Sorted(maps.Keys(mapping)) {
		value, err := n.value(mapping[name])
		if err == nil {
			variables = append(variables, name+"="+value)
		} else if asked {
			return nil, invalid("--env %s: %v", name, err)
		}
	}
	if len(variables) == 0 {
		return nil, invalid("run: name variables for the fields %s with --env NAME=FIELD", n.names())
	}
	return variables, nil
}

// value is what a variable holds: a field, or a text with fields in it, {{username}}, as they are or, as in
// {{password|url}}, encoded for a place in a URL.
func (n connection) value(text string) (string, error) {
	if !strings.Contains(text, "{{") {
		return n.field(text)
	}
	var out strings.Builder
	for {
		before, rest, more := strings.Cut(text, "{{")
		out.WriteString(before)
		if !more {
			return out.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return "", errors.New("a {{ has no }}")
		}
		name, encoded := strings.CutSuffix(name, "|url")
		value, err := n.field(name)
		if err != nil {
			return "", err
		}
		if encoded {
			value = strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
		}
		out.WriteString(value)
		text = after
	}
}

func (n connection) field(name string) (string, error) {
	value, known := n.fields[name]
	if !known {
		return "", fmt.Errorf("the credential has no field %s, but %s", name, n.names())
	}
	return value, nil
}

func (n connection) names() string {
	return strings.Join(slices.Sorted(maps.Keys(n.fields)), ", ")
}

// parseEnv reads --env NAME=FIELD and NAME=TEMPLATE.
func parseEnv(pairs []string) (map[string]string, error) {
	mapping := map[string]string{}
	for _, pair := range pairs {
		name, field, ok := strings.Cut(pair, "=")
		if !ok || name == "" || field == "" {
			return nil, invalid("--env: %q is not NAME=FIELD or NAME=TEMPLATE", pair)
		}
		mapping[name] = field
	}
	return mapping, nil
}

// sourceFields takes a connection URL apart, of which the user part is a
// template. Several hosts stay a list, as libpq reads it.
func sourceFields(connectionURL string) map[string]string {
	scheme, rest, ok := strings.Cut(mysqlURL(connectionURL), "://")
	if !ok {
		return nil
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		authority = authority[at+1:]
	}
	defaultPort := "5432"
	fields := map[string]string{}
	switch scheme {
	case "mysql":
		defaultPort = "3306"
	case "redis", "rediss":
		defaultPort = "6379"
		if fields["tls"] = "false"; scheme == "rediss" {
			fields["tls"] = "true"
		}
	case "mongodb":
		defaultPort = "27017"
	case "redis+sentinel", "rediss+sentinel", "mongodb+srv": // no hosts with data
		return nil
	}
	var hosts, ports []string
	for _, one := range strings.Split(authority, ",") {
		u, err := url.Parse(scheme + "://" + one)
		if err != nil || u.Hostname() == "" {
			return nil
		}
		hosts = append(hosts, u.Hostname())
		ports = append(ports, first(u.Port(), defaultPort))
	}
	if scheme == "mysql" { // its programs take one
		hosts, ports = hosts[:1], ports[:1]
	}
	fields["host"], fields["port"] = strings.Join(hosts, ","), strings.Join(ports, ",")
	if database, err := url.PathUnescape(path); err == nil && database != "" {
		fields["database"] = database
	}
	if values, err := url.ParseQuery(query); err == nil && values.Get("sslmode") != "" {
		fields["sslmode"] = values.Get("sslmode")
	}
	return fields
}

// mysqlURL makes a URL of the form that the driver of MySQL has for it.
func mysqlURL(text string) string {
	user, rest, ok := strings.Cut(text, "@tcp(")
	address, path, closed := strings.Cut(rest, ")/")
	if !ok || !closed || strings.Contains(text, "://") {
		return text
	}
	return "mysql://" + user + "@" + address + "/" + path
}
