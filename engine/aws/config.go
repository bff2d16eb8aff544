package aws

import (
	"encoding/json"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	defaultConsistencyDelay = 5 * time.Second
	maxConsistencyDelay     = 5 * time.Minute
)

// config is the engine's part of a configuration, as docs/engines/aws.md describes it.
type config struct {
	engine.Settings
	engine.TLS
	Ambient     bool   `json:"ambient"` // root is the identity of the server's host, where its operator permits it
	Region      string `json:"region"`
	RoleARN     string `json:"role_arn"`
	ExternalID  string `json:"external_id"`
	IAMEndpoint string `json:"iam_endpoint"`
	STSEndpoint string `json:"sts_endpoint"`
	// ConsistencyDelay is how long a key that was deleted may still be taken somewhere at AWS.
	ConsistencyDelay duration.Duration `json:"consistency_delay"`

	names *statement.NameTemplate // the parsed UsernameTemplate; nil for the usual names
}

// regionForm is what is a region; what is none makes the name of a host that is nobody's.
var regionForm = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}$`)

var externalIDForm = regexp.MustCompile(`^[A-Za-z0-9_+=,.@:/-]{2,}$`)

// isExternalID tells what STS takes as one.
func isExternalID(text string) bool { return len(text) <= 1224 && externalIDForm.MatchString(text) }

// parseConfig decodes and checks; after it every optional field has its value.
func parseConfig(raw json.RawMessage) (*config, error) {
	c := &config{}
	if err := engine.Decode(raw, c); err != nil {
		return nil, err
	}
	complete := c.Complete
	if c.Ambient {
		complete = c.CompleteRootless
	}
	if err := complete(typeName); err != nil {
		return nil, err
	}
	if c.ConsistencyDelay == 0 {
		c.ConsistencyDelay = duration.Duration(defaultConsistencyDelay)
	}
	if err := (engine.Rules{
		{c.Ambient && c.RootCredentialsPath != "", "root_credentials_path is not for ambient: give one of them"},
		{c.Ambient && (c.IAMEndpoint != "" || c.STSEndpoint != "" || c.TLS.Given()),
			"iam_endpoint, sts_endpoint and tls_… are not for ambient: where the identity of the server's host is used is its operator's to say"},
		{!regionForm.MatchString(c.Region), `region is missing or none: write such as "eu-central-1"`},
		{c.RoleARN != "" && !isARN(c.RoleARN, "role"), "role_arn is not the ARN of a role"},
		{c.ExternalID != "" && c.RoleARN == "", "external_id is for the role of role_arn, which is missing"},
		{c.ExternalID != "" && !isExternalID(c.ExternalID), "external_id is none: 2 to 1,224 letters, digits and _+=,.@:/-"},
		{c.ConsistencyDelay.Std() > maxConsistencyDelay, "consistency_delay is longer than 5m"},
	}).Check(); err != nil {
		return nil, err
	}
	for field, endpoint := range map[string]string{"iam_endpoint": c.IAMEndpoint, "sts_endpoint": c.STSEndpoint} {
		if why := checkEndpoint(endpoint); why != "" {
			return nil, engine.Invalid("%s %s: write https://host or https://host:port", field, why)
		}
	}
	var err error
	c.names, err = c.NameTemplate(maxNameBytes)
	return c, err
}

// hostForm is a name of the DNS or an IPv4 address.
var hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// checkEndpoint answers what is wrong with an endpoint; empty if nothing is. Signed requests carry no
// secret of the root's, but their answers carry those of credentials: in clear only on this machine.
func checkEndpoint(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return "is no URL"
	}
	host, port := u.Hostname(), u.Port()
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return "is no URL of https"
	case u.Scheme == "http" && !engine.Loopback(host):
		return "is not encrypted"
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#"):
		return "has more than a host and a port"
	case !hostForm.MatchString(host) && net.ParseIP(host) == nil:
		return "names no host"
	case strings.HasSuffix(u.Host, ":"):
		return "has an empty port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return "has a port that is not a number from 1 to 65535"
	}
	return ""
}

// endpoint is where the root's requests go, and as whom.
func (c *config) endpoint() string {
	where := "region " + c.Region
	if c.Ambient {
		where += ", ambient"
	}
	for _, part := range []struct{ name, value string }{{"iam", c.IAMEndpoint}, {"sts", c.STSEndpoint}, {"as", c.RoleARN}} {
		if part.value != "" {
			where += ", " + part.name + " " + part.value
		}
	}
	return where
}

// bounds are those of a role's credentials, which temporary keys of the root make shorter. What a root
// secret holds is not known here.
func (c *config) bounds(er engine.Role) engine.Bounds {
	r, ok := er.(*role)
	if !ok {
		return engine.Bounds{}
	}
	bounds := r.Bounds()
	if r.CredentialType == assumedRole && (c.Ambient || c.RoleARN != "") {
		bounds.Longest = longestChained
	}
	return bounds
}

// partition is the part of AWS in which a region lies: ARNs begin with it.
func (c *config) partition() string {
	switch {
	case strings.HasPrefix(c.Region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(c.Region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}
