package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
)

// keptSpare is how much life a credential that was kept must have left to be given once more.
const keptSpare = 5 * time.Minute

// keptOptions are what a command needs that prints a credential, and may keep it in a file.
type keptOptions struct {
	creds string
	form  string // in which it is printed; the lease tells it as that which asked
	ttl   string
	cache string
}

func (o *keptOptions) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.ttl, "ttl", "", "its life; the role's default when absent")
	cmd.Flags().StringVar(&o.cache, "cache", "", "keep it in this file until it is about to end")
}

// keptCredential is what such a file holds. Of tells what it is a credential of, and in which form, so
// that a file which is named twice gives nobody what another wanted.
type keptCredential[T any] struct {
	Of         string    `json:"of"`
	Ends       time.Time `json:"ends"`
	Credential T         `json:"credential"`
}

// kept answers the credential of the file, if it has one that lives long enough, else makes one, and
// keeps that. What is wrong with the file is no obstacle: it is written anew. A credential that read
// refuses is revoked.
func kept[T any](ctx context.Context, a *app, o keptOptions, read func(*client.Lease) (T, error)) (T, error) {
	var none T
	s, err := a.resolve()
	if err != nil {
		return none, err
	}
	c, err := a.connect(s)
	if err != nil {
		return none, err
	}
	of := strings.Join([]string{s.URL, s.Tenant, o.creds, o.form}, " ")
	if found, ok := readKept[T](o.cache, of); ok {
		return found, nil
	}
	lease, err := obtain(ctx, c, o.creds, o.ttl, client.GenerateOptions{Metadata: map[string]string{"via": "scaivault " + o.form}})
	if err != nil {
		return none, err
	}
	made, err := read(lease)
	if err != nil {
		return none, errors.Join(err, lease.Close(ctx))
	}
	if err := writeKept(o.cache, keptCredential[T]{of, lease.Expires(), made}); err != nil {
		a.say("keep the credential: %v", err)
	}
	return made, nil
}

func readKept[T any](file, of string) (credential T, ok bool) {
	if file == "" {
		return credential, false
	}
	var k keptCredential[T]
	raw, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(raw, &k) != nil {
		return credential, false
	}
	return k.Credential, k.Of == of && time.Until(k.Ends) > keptSpare
}

// writeKept writes the file whole or not at all, readable by its owner alone.
func writeKept[T any](file string, k keptCredential[T]) error {
	if file == "" {
		return nil
	}
	next, err := os.CreateTemp(filepath.Dir(file), ".credentials-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // nothing is there once it was renamed
	err = json.NewEncoder(next).Encode(k)
	if err := errors.Join(err, next.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.Rename(next.Name(), file)
}
