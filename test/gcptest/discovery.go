package gcptest

import (
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed testdata/*.json
var descriptions embed.FS

// description is what Google says of one of its APIs.
type description struct {
	Parameters map[string]*parameter `json:"parameters"` // of all methods
	Methods    map[string]*method    `json:"methods"`
	Schemas    map[string]*schema    `json:"schemas"`
}

// method is one call of an API.
type method struct {
	ID         string                `json:"id"`
	HTTPMethod string                `json:"httpMethod"`
	Path       string                `json:"path"`
	Parameters map[string]*parameter `json:"parameters"`
	Request    *schema               `json:"request"`
	Response   *schema               `json:"response"`

	of      *description
	form    *regexp.Regexp // of the path, with a group for each parameter
	inPath  []string
	pattern map[string]*regexp.Regexp
}

type parameter struct {
	Location string   `json:"location"`
	Pattern  string   `json:"pattern"`
	Required bool     `json:"required"`
	Type     string   `json:"type"`
	Format   string   `json:"format"`
	Enum     []string `json:"enum"`
}

// schema is the form of a value.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Format     string             `json:"format"`
	Enum       []string           `json:"enum"`
	ReadOnly   bool               `json:"readOnly"`
	Properties map[string]*schema `json:"properties"`
	Additional *schema            `json:"additionalProperties"`
	Items      *schema            `json:"items"`
	Annotated  struct {
		Required []string `json:"required"` // ids of methods
	} `json:"annotations"`
}

// describe reads all the descriptions.
func describe() ([]*method, error) {
	files, err := descriptions.ReadDir("testdata")
	if err != nil {
		return nil, err
	}
	var all []*method
	for _, f := range files {
		text, err := descriptions.ReadFile(path.Join("testdata", f.Name()))
		if err != nil {
			return nil, err
		}
		d := &description{}
		if err := json.Unmarshal(text, d); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		for _, m := range d.Methods {
			m.of = d
			m.compile()
			all = append(all, m)
		}
	}
	return all, nil
}

var pathParameter = regexp.MustCompile(`\{\+?([A-Za-z]+)\}`)

func (m *method) compile() {
	m.pattern = map[string]*regexp.Regexp{}
	var form strings.Builder
	last := 0
	for _, at := range pathParameter.FindAllStringSubmatchIndex(m.Path, -1) {
		name := m.Path[at[2]:at[3]]
		form.WriteString(regexp.QuoteMeta(m.Path[last:at[0]]) + "(.+)")
		last = at[1]
		m.inPath = append(m.inPath, name)
		m.pattern[name] = regexp.MustCompile(m.Parameters[name].Pattern)
	}
	m.form = regexp.MustCompile("^/" + form.String() + regexp.QuoteMeta(m.Path[last:]) + "$")
}

// match gives the parameters of a path; nil where the method has another.
func (m *method) match(r *http.Request) map[string]string {
	found := m.form.FindStringSubmatch(r.URL.Path)
	if found == nil || r.Method != m.HTTPMethod {
		return nil
	}
	values := map[string]string{}
	for i, name := range m.inPath {
		if values[name] = found[i+1]; !m.pattern[name].MatchString(found[i+1]) {
			return nil
		}
	}
	return values
}

// checkQuery tells what is wrong with the parameters of a request.
func (m *method) checkQuery(query url.Values) error {
	for name, values := range query {
		p := m.Parameters[name]
		if p == nil {
			p = m.of.Parameters[name]
		}
		switch {
		case p == nil || p.Location != "query":
			return fmt.Errorf("%s: there is no parameter %s", m.ID, name)
		case len(p.Enum) > 0 && !slices.Contains(p.Enum, values[0]):
			return fmt.Errorf("%s: parameter %s cannot be %q", m.ID, name, values[0])
		case p.Type == "integer":
			if _, err := strconv.ParseInt(values[0], 10, 32); err != nil {
				return fmt.Errorf("%s: parameter %s is no number", m.ID, name)
			}
		}
	}
	for name, p := range m.Parameters {
		if p.Required && p.Location == "query" && !query.Has(name) {
			return fmt.Errorf("%s: parameter %s is missing", m.ID, name)
		}
	}
	return nil
}

// checkRequest tells what is wrong with the body of a request.
func (m *method) checkRequest(body []byte) error {
	if m.Request == nil {
		if len(body) > 0 {
			return fmt.Errorf("%s takes no body", m.ID)
		}
		return nil
	}
	return m.check(m.Request, body, true)
}

// checkResponse tells what is wrong with an answer.
func (m *method) checkResponse(body []byte) error { return m.check(m.Response, body, false) }

func (m *method) check(s *schema, body []byte, request bool) error {
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return fmt.Errorf("%s: the body is no JSON: %w", m.ID, err)
	}
	if err := m.checkValue(s, value, request); err != nil {
		return fmt.Errorf("%s: %w", m.ID, err)
	}
	return nil
}

func (m *method) checkValue(s *schema, value any, request bool) error {
	if s.Ref != "" {
		s = m.of.Schemas[s.Ref]
	}
	switch s.Type {
	case "object":
		fields, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("%v is no object", value)
		}
		return m.checkObject(s, fields, request)
	case "array":
		items, ok := value.([]any)
		if !ok {
			return fmt.Errorf("%v is no list", value)
		}
		for i, item := range items {
			if err := m.checkValue(s.Items, item, request); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			return fmt.Errorf("%v is no boolean", value)
		}
	case "integer":
		if n, ok := value.(float64); !ok || n != float64(int32(n)) {
			return fmt.Errorf("%v is no int32", value)
		}
	case "string":
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("%v is no string", value)
		}
		return checkText(s, text)
	}
	return nil
}

func (m *method) checkObject(s *schema, fields map[string]any, request bool) error {
	for name, value := range fields {
		p := s.Properties[name]
		if p == nil {
			p = s.Additional
		}
		switch {
		case p == nil:
			return fmt.Errorf("there is no field %s", name)
		case request && p.ReadOnly:
			return fmt.Errorf("the field %s is Google's to write", name)
		}
		if err := m.checkValue(p, value, request); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, p := range s.Properties {
		if _, given := fields[name]; request && !given && slices.Contains(p.Annotated.Required, m.ID) {
			return fmt.Errorf("the field %s is missing", name)
		}
	}
	return nil
}

var durationForm = regexp.MustCompile(`^[0-9]+(\.[0-9]{1,9})?s$`)

func checkText(s *schema, text string) (err error) {
	switch s.Format {
	case "byte":
		_, err = base64.StdEncoding.DecodeString(text)
	case "google-datetime":
		_, err = time.Parse(time.RFC3339Nano, text)
	case "google-duration":
		if !durationForm.MatchString(text) {
			err = fmt.Errorf("%q is no duration", text)
		}
	}
	if err == nil && len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
		err = fmt.Errorf("%q is none of %v", text, s.Enum)
	}
	return err
}
