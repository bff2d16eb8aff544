package aws

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// The sources of the host's identity.
const (
	instanceSource  = "instance"
	containerSource = "container"
	webSource       = "web_identity"
)

// Host is the identity at AWS that the machine gives to the server, and the engines that may use it. It
// is the operator's to give away, and no part of the API: whoever may write an engine must not become
// the host by that. Its zero value gives it to none.
type Host struct {
	source  string
	engines []string // as TENANT/ENGINE, or TENANT/* for all of a tenant

	metadata  place            // of instance and container
	token     statement.Secret // of container: what authorizes the request
	tokenFile string           // of container, in the place of token; of web_identity
	roleARN   string           // of web_identity
	session   string           // of web_identity: its name

	iamEndpoint, stsEndpoint string // empty for AWS's own
}

// place is where keys are told: one address, which no name and no answer changes.
type place struct {
	url  string
	addr netip.AddrPort
}

// grantForm is an engine, or all engines, of one tenant.
var grantForm = regexp.MustCompile(`^tnt_[A-Za-z0-9_-]{1,64}/(\*|[a-z][a-z0-9_-]{0,62})$`)

// NewHost reads what the operator has set: a source of the host's identity, and the engines that may use
// it; both empty for none. Where the identity is told is in the environment, in the variables that AWS's
// own SDK reads. Long-lived keys there are no source: they are a password that belongs into a secret.
func NewHost(source string, engines []string, env func(string) string) (Host, error) {
	h := Host{source: source, engines: engines, iamEndpoint: env("AWS_ENDPOINT_URL_IAM"), stsEndpoint: env("AWS_ENDPOINT_URL_STS")}
	if source == "" && len(engines) == 0 {
		return Host{}, nil
	}
	for _, granted := range engines {
		if !grantForm.MatchString(granted) {
			return Host{}, fmt.Errorf("AMBIENT_AWS_ENGINES: %.100q: write TENANT/ENGINE such as tnt_default/cloud, or TENANT/* for all engines of a tenant", granted)
		}
	}
	if len(engines) == 0 {
		return Host{}, errors.New("AMBIENT_AWS_ENGINES: name the engines that may use the host's identity, as TENANT/ENGINE")
	}
	for name, endpoint := range map[string]string{"AWS_ENDPOINT_URL_IAM": h.iamEndpoint, "AWS_ENDPOINT_URL_STS": h.stsEndpoint} {
		if why := checkEndpoint(endpoint); why != "" {
			return Host{}, fmt.Errorf("%s %s: write https://host or https://host:port", name, why)
		}
	}
	var err error
	switch source {
	case instanceSource:
		h.metadata, err = instancePlace(env)
	case containerSource:
		err = h.readContainer(env)
	case webSource:
		err = h.readWebIdentity(env)
	default:
		err = errors.New("AMBIENT_AWS_SOURCE: write instance, container or web_identity; keys belong into a secret, not into the environment")
	}
	if err != nil {
		return Host{}, err
	}
	return h, nil
}

// The addresses at which AWS itself tells keys.
var (
	instanceAddrs  = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")}
	containerAddrs = []netip.Addr{netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("169.254.170.23"), netip.MustParseAddr("fd00:ec2::23")}
)

func instancePlace(env func(string) string) (place, error) {
	const variable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
	text := env(variable)
	switch {
	case text == "" && strings.EqualFold(env(variable+"_MODE"), "IPv6"):
		text = "http://[fd00:ec2::254]"
	case text == "":
		text = "http://169.254.169.254"
	}
	p, path, err := readPlace(text, instanceAddrs)
	if err == nil && strings.Trim(path, "/") != "" {
		err = errors.New("it has a path")
	}
	if err != nil {
		return place{}, fmt.Errorf("%s: %w", variable, err)
	}
	return p, nil
}

func (h *Host) readContainer(env func(string) string) (err error) {
	const ofECS, ofAll = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"
	variable, text := ofAll, env(ofAll)
	if path := env(ofECS); path != "" {
		variable, text = ofECS, "http://169.254.170.2"+path
	}
	switch {
	case text == "":
		return errors.New("AMBIENT_AWS_SOURCE: the environment has neither " + ofECS + " nor " + ofAll + ": this is no container with a role")
	case variable == ofECS && env(ofECS)[0] != '/':
		return errors.New(ofECS + ": it does not begin with /")
	}
	if h.metadata, _, err = readPlace(text, containerAddrs); err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	h.token, h.tokenFile = statement.Secret(env("AWS_CONTAINER_AUTHORIZATION_TOKEN")), env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
	if h.tokenFile != "" && !filepath.IsAbs(h.tokenFile) {
		return errors.New("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: it is no absolute path")
	}
	return nil
}

var roleSessionForm = regexp.MustCompile(`^[A-Za-z0-9_=,.@+-]{2,64}$`)

func (h *Host) readWebIdentity(env func(string) string) error {
	h.tokenFile, h.roleARN, h.session = env("AWS_WEB_IDENTITY_TOKEN_FILE"), env("AWS_ROLE_ARN"), env("AWS_ROLE_SESSION_NAME")
	if h.session == "" {
		h.session = rootSession
	}
	switch {
	case !filepath.IsAbs(h.tokenFile):
		return errors.New("AWS_WEB_IDENTITY_TOKEN_FILE: it is missing, or no absolute path")
	case !isARN(h.roleARN, "role"):
		return errors.New("AWS_ROLE_ARN: it is missing, or not the ARN of a role")
	case !roleSessionForm.MatchString(h.session):
		return errors.New("AWS_ROLE_SESSION_NAME: write 2 to 64 letters, digits and _=,.@+-")
	}
	return nil
}

// readPlace reads a URL as AWS's SDK permits it without encryption: at an address of AWS's own, where
// there is one port, or on this machine. Names are none, since others answer for them.
func readPlace(text string, known []netip.Addr) (p place, path string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.User != nil || u.Fragment != "" {
		return p, "", errors.New("it is no URL such as http://127.0.0.1:8080")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	port, wrong := uint64(80), error(nil)
	if text := u.Port(); text != "" {
		port, wrong = strconv.ParseUint(text, 10, 16)
	}
	switch {
	case u.Scheme != "http":
		return p, "", errors.New("it is no URL of http")
	case err != nil || !addr.IsLoopback() && !slices.Contains(known, addr):
		return p, "", errors.New("its host is neither an address of AWS's own service nor a loopback one")
	case port == 0 || wrong != nil:
		return p, "", errors.New("its port is not a number from 1 to 65535")
	case !addr.IsLoopback() && port != 80:
		return p, "", errors.New("AWS's own service has port 80")
	}
	return place{u.String(), netip.AddrPortFrom(addr, uint16(port))}, u.Path, nil
}

// permit refuses engines to which the operator has not given the host's identity. All are told the same,
// whether there is an identity or not.
func (h Host) permit(o engine.Options) error {
	if h.source != "" && (slices.Contains(h.engines, o.Tenant+"/"+o.EngineName) || slices.Contains(h.engines, o.Tenant+"/*")) {
		return nil
	}
	return failure(engine.Misconfigured, "ambient: engine "+o.EngineName+" may not use the identity of the server's host: the operator of the server permits it by AMBIENT_AWS_SOURCE, and by "+
		o.Tenant+"/"+o.EngineName+" in AMBIENT_AWS_ENGINES", nil)
}
