package cli

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/server"
)

func (a *app) versionCommand() *cobra.Command {
	return a.local("version", "print the version of this program", 0,
		func(context.Context, []string) error {
			v := build(a.Version)
			return a.show(v, func(t *table) {
				t.field("version", v.Version)
				t.field("commit", v.Commit)
				t.field("go", v.GoVersion)
				t.field("api", v.API)
			})
		})
}

func (a *app) openAPICommand() *cobra.Command {
	return a.local("openapi", "print the description of the HTTP interface", 0,
		func(context.Context, []string) error {
			document, err := server.OpenAPI()
			if err != nil {
				return err
			}
			_, err = a.Out.Write(document)
			return err
		})
}

// build names the program: by the given version, else by what the Go tool wrote
// into it.
func build(version string) api.Version {
	v := api.Version{Version: first(version, "devel"), GoVersion: runtime.Version(), API: "v1"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if version == "" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}
