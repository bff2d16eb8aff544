package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/scaivault/scaivault/client"

	"github.com/scaivault/scaivault/internal/folder"
)

// settings say where the server is and who is asking; their file is readable by
// its owner only.
type settings struct {
	URL          string `json:"url,omitempty"`
	Token        string `json:"token,omitempty"`
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
	Tenant       string `json:"tenant_id,omitempty"`
}

// client makes the client of this run: flags win over the environment, the
// environment over the file. Who is asking is taken from one place as a whole.
func (a *app) client() (*client.Client, error) {
	s, err := a.resolve()
	if err != nil {
		return nil, err
	}
	return a.connect(s)
}

func (a *app) connect(s settings) (*client.Client, error) {
	if s.URL == "" {
		return nil, errors.New("find the server: no address is set; log in with: scaivault auth login --url URL, or set SCAIVAULT_URL")
	}
	c, err := client.New(client.Config{
		URL: s.URL, Token: s.Token, ClientID: s.ClientID, ClientSecret: s.ClientSecret, Tenant: s.Tenant,
		Retries:   -1, // a person decides about trying again
		UserAgent: "scaivault-cli",
	})
	if err != nil {
		return nil, invalid("%w", err)
	}
	return c, nil
}

func (a *app) resolve() (settings, error) {
	file, err := a.loadSettings()
	if err != nil {
		return settings{}, err
	}
	s := settings{
		URL:    first(a.settings.URL, a.env("SCAIVAULT_URL"), file.URL),
		Tenant: first(a.settings.Tenant, a.env("SCAIVAULT_TENANT_ID"), file.Tenant),
	}
	switch {
	case a.env("SCAIVAULT_TOKEN") != "":
		s.Token = a.env("SCAIVAULT_TOKEN")
	case a.env("SCAIVAULT_CLIENT_ID") != "":
		s.ClientID, s.ClientSecret = a.env("SCAIVAULT_CLIENT_ID"), a.env("SCAIVAULT_CLIENT_SECRET")
	case s.URL == file.URL:
		s.Token, s.ClientID, s.ClientSecret = file.Token, file.ClientID, file.ClientSecret
	}
	// The file's token belongs to the file's server; it is not sent to another one.
	return s, nil
}

func (a *app) settingsPath() string {
	return filepath.Join(first(a.env("HOME"), "."), ".scaivault", "config.json")
}

// loadSettings reads the file; that there is none is fine.
func (a *app) loadSettings() (settings, error) {
	var s settings
	path := a.settingsPath()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read the settings: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, invalid("read the settings: %s is not the JSON that auth login writes; mend or remove it", path)
	}
	return s, nil
}

// saveSettings replaces the file, whole or not at all.
func (a *app) saveSettings(s settings) error {
	data, err := json.MarshalIndent(s, "", "  ") //nolint:gosec // keeping what one logs in with is the purpose of the file
	if err != nil {
		return err
	}
	if err := folder.Replace(a.settingsPath(), string(data)+"\n"); err != nil {
		return fmt.Errorf("save the settings: %w", err)
	}
	return nil
}

func (a *app) env(name string) string {
	for i := len(a.Environ) - 1; i >= 0; i-- { // as in a shell, the last one holds
		if value, ok := strings.CutPrefix(a.Environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// first answers the first text that is not empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
