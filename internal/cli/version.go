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
			v := build()
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

// build is what the Go tool wrote into the program.
func build() api.Version {
	v := api.Version{Version: "devel", GoVersion: runtime.Version(), API: "v1"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}
