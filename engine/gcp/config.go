package gcp

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

// propagation is how long Google may take until a deleted account or binding is gone everywhere: "2
// minutes, potentially 7 minutes or longer" (Access change propagation, IAM documentation).
const propagation = 7 * time.Minute

// operationTimeout is the default: an account that was made just now may be waited for.
const operationTimeout = time.Minute

// config is the engine's part of a configuration, as docs/engines/gcp.md describes it.
type config struct {
	engine.Settings
	engine.TLS
	Project     string            `json:"project"`
	Endpoints   endpoints         `json:"endpoints"`
	Propagation duration.Duration `json:"iam_propagation"`
}

// endpoints are where Google's services are: scheme and host, without a path.
type endpoints struct {
	IAM             string `json:"iam"`
	Credentials     string `json:"iamcredentials"`
	ResourceManager string `json:"cloudresourcemanager"`
	PubSub          string `json:"pubsub"`
	SecretManager   string `json:"secretmanager"`
	OAuth           string `json:"oauth2"`
	STS             string `json:"sts"`
}

// all are the endpoints with their names in the configuration, in its order.
func (p *endpoints) all() []struct {
	name string
	url  *string
} {
	return []struct {
		name string
		url  *string
	}{
		{"iam", &p.IAM}, {"iamcredentials", &p.Credentials}, {"cloudresourcemanager", &p.ResourceManager},
		{"pubsub", &p.PubSub}, {"secretmanager", &p.SecretManager}, {"oauth2", &p.OAuth}, {"sts", &p.STS},
	}
}

var (
	projectForm = regexp.MustCompile(`^[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	hostForm    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// parseConfig decodes and checks; after it every optional field has its value.
func parseConfig(raw json.RawMessage) (*config, error) {
	c := &config{}
	if err := engine.Decode(raw, c); err != nil {
		return nil, err
	}
	if c.OperationTimeout == 0 {
		c.OperationTimeout = duration.Duration(operationTimeout)
	}
	if err := c.Complete(typeName); err != nil {
		return nil, err
	}
	if c.Propagation == 0 {
		c.Propagation = duration.Duration(propagation)
	}
	if err := (engine.Rules{
		{!projectForm.MatchString(c.Project), "project is not the id of a project, such as my-project-123"},
		{c.UsernameTemplate != "", "username_template is not for GCP, whose names of accounts leave no choice"},
		{c.Propagation.Std() > tokenLife, "iam_propagation is longer than 1h, when every token has ended by itself"},
	}).Check(); err != nil {
		return nil, err
	}
	for _, p := range c.Endpoints.all() {
		if *p.url == "" {
			*p.url = "https://" + p.name + ".googleapis.com"
		} else if why := badEndpoint(*p.url); why != "" {
			return nil, engine.Invalid("endpoints.%s %s", p.name, why)
		}
	}
	return c, nil
}

// badEndpoint answers what is wrong with an endpoint; empty if nothing is. Only what is written
// exactly as it is used passes, so that no two readers see two hosts in it.
func badEndpoint(text string) string {
	const form = "is not of the form https://host or https://host:port"
	u, err := url.Parse(text)
	if err != nil || u.Scheme+"://"+u.Host != text {
		return form
	}
	host := strings.Trim(u.Hostname(), "[]")
	bracketed := strings.HasPrefix(u.Host, "[")
	if bracketed != strings.Contains(host, ":") || strings.Contains(host, "%") || !bracketed && !hostForm.MatchString(host) {
		return form
	}
	if u.Port() != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != u.Port() {
			return form
		}
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && engine.Loopback(host):
		return ""
	case u.Scheme == "http":
		return "is not encrypted: the root's token would cross the network in clear; write https://"
	}
	return form
}

// endpoint is where the root's key and tokens are sent.
func (c *config) endpoint() string {
	where := []string{c.Project}
	for _, p := range c.Endpoints.all() {
		if *p.url != "https://"+p.name+".googleapis.com" {
			where = append(where, p.name+"="+*p.url)
		}
	}
	return strings.Join(where, " ")
}
