package aws_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine/aws"
)

// What the operator sets is refused at the start where it cannot be right: keys are told at AWS's own
// addresses, or on this machine, and nowhere else.
func TestNewHost(t *testing.T) {
	t.Parallel()
	const imds, full, relative = "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	web := map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x"}
	with := func(more ...string) map[string]string {
		all := maps.Clone(web)
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	engines := []string{"tnt_default/cloud"}
	for name, c := range map[string]struct {
		source  string
		engines []string
		env     map[string]string
		says    string // empty where it is right
	}{
		"nothing":               {"", nil, nil, ""},
		"nothing, wrong URL":    {"", nil, map[string]string{"AWS_ENDPOINT_URL_STS": "http://evil.example"}, ""},
		"instance":              {"instance", engines, nil, ""},
		"all of a tenant":       {"instance", []string{"tnt_default/*", "tnt_2/a-b_c"}, nil, ""},
		"no engines":            {"instance", nil, nil, "AMBIENT_AWS_ENGINES"},
		"no source":             {"", engines, nil, "AMBIENT_AWS_SOURCE"},
		"environment":           {"environment", engines, map[string]string{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x"}, "secret"},
		"all engines":           {"instance", []string{"*"}, nil, "AMBIENT_AWS_ENGINES"},
		"all tenants":           {"instance", []string{"*/cloud"}, nil, "AMBIENT_AWS_ENGINES"},
		"no tenant":             {"instance", []string{"cloud"}, nil, "AMBIENT_AWS_ENGINES"},
		"a pattern":             {"instance", []string{"tnt_default/c*"}, nil, "AMBIENT_AWS_ENGINES"},
		"instance, IPv6":        {"instance", engines, map[string]string{imds + "_MODE": "IPv6"}, ""},
		"instance, said":        {"instance", engines, map[string]string{imds: "http://169.254.169.254/"}, ""},
		"instance, here":        {"instance", engines, map[string]string{imds: "http://127.0.0.1:1338"}, ""},
		"instance, here, IPv6":  {"instance", engines, map[string]string{imds: "http://[::1]:1338"}, ""},
		"instance, a name":      {"instance", engines, map[string]string{imds: "http://localhost:1338"}, imds},
		"instance, elsewhere":   {"instance", engines, map[string]string{imds: "http://10.0.0.1"}, imds},
		"instance, a path":      {"instance", engines, map[string]string{imds: "http://127.0.0.1/x"}, imds},
		"instance, a port":      {"instance", engines, map[string]string{imds: "http://169.254.169.254:8080"}, "port 80"},
		"instance, port 0":      {"instance", engines, map[string]string{imds: "http://127.0.0.1:0"}, "port"},
		"instance, big port":    {"instance", engines, map[string]string{imds: "http://127.0.0.1:65536"}, imds},
		"instance, https":       {"instance", engines, map[string]string{imds: "https://127.0.0.1"}, imds},
		"instance, a user":      {"instance", engines, map[string]string{imds: "http://x@169.254.169.254"}, imds},
		"instance, another's":   {"instance", engines, map[string]string{imds: "http://169.254.170.2"}, imds},
		"mapped address":        {"instance", engines, map[string]string{imds: "http://[::ffff:169.254.169.254]"}, imds},
		"ECS":                   {"container", engines, map[string]string{relative: "/v2/credentials/abc"}, ""},
		"ECS, elsewhere":        {"container", engines, map[string]string{relative: "@evil.example/"}, relative},
		"EKS":                   {"container", engines, map[string]string{full: "http://169.254.170.23/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/t"}, ""},
		"EKS, IPv6":             {"container", engines, map[string]string{full: "http://[fd00:ec2::23]/v1/credentials"}, ""},
		"container, instance's": {"container", engines, map[string]string{full: "http://169.254.169.254/latest"}, full},
		"container, elsewhere":  {"container", engines, map[string]string{full: "http://evil.example/"}, full},
		"container, encrypted":  {"container", engines, map[string]string{full: "https://evil.example/"}, full},
		"container, token":      {"container", engines, map[string]string{full: "http://127.0.0.1/", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "token"}, "TOKEN_FILE"},
		"no container":          {"container", engines, nil, "no container"},
		"IRSA":                  {"web_identity", engines, web, ""},
		"IRSA, endpoints":       {"web_identity", engines, with("AWS_ENDPOINT_URL_STS", "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com"), ""},
		"IRSA, in clear":        {"web_identity", engines, with("AWS_ENDPOINT_URL_STS", "http://sts.example.com"), "AWS_ENDPOINT_URL_STS"},
		"IRSA, no file":         {"web_identity", engines, with("AWS_WEB_IDENTITY_TOKEN_FILE", ""), "AWS_WEB_IDENTITY_TOKEN_FILE"},
		"IRSA, no role":         {"web_identity", engines, with("AWS_ROLE_ARN", "arn:aws:iam::123456789012:user/x"), "AWS_ROLE_ARN"},
		"IRSA, session":         {"web_identity", engines, with("AWS_ROLE_SESSION_NAME", "a b"), "AWS_ROLE_SESSION_NAME"},
	} {
		_, err := aws.NewHost(c.source, c.engines, func(name string) string { return c.env[name] })
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
