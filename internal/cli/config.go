package cli

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	return group("config", "settings of this command line", a.configSet(), a.configShow())
}

func (a *app) configSet() *cobra.Command {
	var from string
	cmd := a.local("set [NAME=VALUE...] [--from FILE]", "keep settings for the next commands", -1,
		func(_ context.Context, args []string) error {
			s, err := a.loadSettings()
			if err != nil {
				return err
			}
			if from == "" && len(args) == 0 {
				return invalid("set: give NAME=VALUE; the names are url, token, client_id, client_secret and tenant_id")
			}
			if from != "" {
				data, err := a.readFile(from)
				if err != nil {
					return err
				}
				var dev devFile
				if json.Unmarshal(data, &dev) != nil || dev.URL == "" || dev.Token == "" {
					return invalid("read %s: it is not the dev.json of scaivault dev", from)
				}
				s = settings{URL: dev.URL, Token: dev.Token}
			}
			for _, arg := range args {
				if err := a.setOne(&s, arg); err != nil {
					return err
				}
			}
			return a.saveSettings(s)
		})
	cmd.Long = `Keep settings in ~/.scaivault/config.json, which only you can read. The names are
url, token, client_id, client_secret and tenant_id; NAME=- reads the value from
standard input, NAME= forgets it. --from takes the dev.json of "scaivault dev".`
	cmd.Flags().StringVar(&from, "from", "", "take address and token from this dev.json")
	return cmd
}

func (a *app) setOne(s *settings, arg string) (err error) {
	name, value, ok := strings.Cut(arg, "=")
	target := map[string]*string{
		"url": &s.URL, "token": &s.Token, "client_id": &s.ClientID,
		"client_secret": &s.ClientSecret, "tenant_id": &s.Tenant,
	}[name]
	if !ok || target == nil {
		return invalid("set %q: write url=, token=, client_id=, client_secret= or tenant_id=", name)
	}
	if value == "-" {
		if value, err = a.readSecret(name); err != nil {
			return err
		}
	}
	*target = value
	switch { // who is asking is one or the other
	case value == "":
	case name == "token":
		s.ClientID, s.ClientSecret = "", ""
	case name == "client_id", name == "client_secret":
		s.Token = ""
	}
	return nil
}

func (a *app) configShow() *cobra.Command {
	return a.local("show", "print the settings that hold now, without the secrets", 0,
		func(context.Context, []string) error {
			s, err := a.resolve()
			if err != nil {
				return err
			}
			shown := map[string]string{
				"url": s.URL, "tenant_id": s.Tenant, "client_id": s.ClientID,
				"token": masked(s.Token), "client_secret": masked(s.ClientSecret), "file": a.settingsPath(),
			}
			return a.show(shown, func(t *table) {
				for _, name := range []string{"url", "tenant_id", "token", "client_id", "client_secret", "file"} {
					t.field(name, shown[name])
				}
			})
		})
}

func masked(secret string) string {
	if secret == "" {
		return ""
	}
	return "(set)"
}
