package secret

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
)

// The types of secrets.
const (
	typeKV          = "kv"
	typeJSON        = "json"
	typeCertificate = "certificate"
	typeSSHKey      = "ssh_key"
	typeAPIKey      = "api_key"
)

func orKV(kind string) string {
	if kind == "" {
		return typeKV
	}
	return kind
}

// checkWrite names everything that is wrong with the request at once.
func checkWrite(req *api.SecretWrite) error {
	switch orKV(req.SecretType) {
	case typeKV, typeJSON, typeCertificate, typeSSHKey, typeAPIKey:
	default:
		return fault.New(fault.InvalidSecretType, "read secret_type: it must be kv, json, certificate, ssh_key or api_key")
	}
	wrong := optionsWrong(req.Options)
	if len(req.Data) == 0 {
		wrong = append(wrong, "data: an object with at least one field is required")
	}
	for name := range req.Data {
		if name == "" || len(name) > 256 {
			wrong = append(wrong, "data: the name of a field has 1 to 256 bytes")
			break
		}
	}
	if req.Metadata != nil {
		wrong = append(wrong, metadataWrong(req.Metadata)...)
	}
	return validation(wrong)
}

func checkOptions(o *api.SecretOptions) error   { return validation(optionsWrong(o)) }
func checkMetadata(m *api.SecretMetadata) error { return validation(metadataWrong(m)) }

func optionsWrong(o *api.SecretOptions) []string {
	var wrong []string
	if o == nil {
		return nil
	}
	if o.MaxVersions != nil && (*o.MaxVersions < 1 || *o.MaxVersions > maxVersions) {
		wrong = append(wrong, fmt.Sprintf("options.max_versions: 1 to %d", maxVersions))
	}
	if o.CAS != nil && *o.CAS < 0 {
		wrong = append(wrong, "options.cas: the version that must be current, 0 for none")
	}
	return wrong
}

func metadataWrong(m *api.SecretMetadata) []string {
	var wrong []string
	if utf8.RuneCountInString(m.Description) > 1024 {
		wrong = append(wrong, "metadata.description: at most 1024 characters")
	}
	if utf8.RuneCountInString(m.Owner) > 256 {
		wrong = append(wrong, "metadata.owner: at most 256 characters")
	}
	bad := func(tag string) bool { return tag == "" || utf8.RuneCountInString(tag) > 128 }
	if len(m.Tags) > 50 || slices.ContainsFunc(m.Tags, bad) {
		wrong = append(wrong, "metadata.tags: at most 50, each of 1 to 128 characters")
	}
	return wrong
}

func validation(wrong []string) error {
	if len(wrong) == 0 {
		return nil
	}
	return fault.New(fault.ValidationError, "write the secret: %d fields are wrong; details.fields names them", len(wrong)).
		With("fields", wrong)
}

// checkData looks whether the data are of the secret's type. A message never quotes a value.
func checkData(kind string, data map[string]json.RawMessage) error {
	switch kind {
	case typeKV:
		for _, v := range data {
			if c := v[0]; c == '{' || c == '[' {
				return wrongType("a kv secret holds texts, numbers and true or false; use secret_type json for nested data")
			}
		}
	case typeCertificate:
		block, _ := pem.Decode([]byte(field(data, "certificate")))
		if block == nil || block.Type != "CERTIFICATE" {
			return wrongType("a certificate secret holds a PEM certificate in the field certificate")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return wrongType("the field certificate holds no X.509 certificate")
		}
	case typeSSHKey:
		if field(data, "private_key") == "" && field(data, "public_key") == "" {
			return wrongType("an ssh_key secret holds private_key, public_key or both")
		}
	case typeAPIKey:
		if field(data, "api_key") == "" && field(data, "key") == "" {
			return wrongType("an api_key secret holds the key in the field api_key")
		}
	}
	return nil
}

// field is a text field of the data; "" for another kind of value or none.
func field(data map[string]json.RawMessage, name string) string {
	var text string
	if json.Unmarshal(data[name], &text) != nil {
		return ""
	}
	return text
}

func wrongType(reason string) error {
	return fault.New(fault.InvalidSecretType, "read the secret's data: %s", reason)
}
