package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/scaivault/scaivault/internal/backup"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/folder"
	"github.com/scaivault/scaivault/internal/node"
)

func (a *app) backupCommand() *cobra.Command {
	var given settingFlags
	var to keysTo
	var out string
	cmd := a.local("backup --recipient age1... --out FILE", "take an encrypted backup of the store, on the server's host", 0,
		func(ctx context.Context, _ []string) error {
			c, err := a.loadConfig(given)
			if err != nil {
				return err
			}
			recipients, err := to.read(a)
			if err != nil {
				return err
			}
			return a.backup(ctx, c, out, recipients, to.names())
		})
	cmd.Long = `Take a backup of everything that the store holds, as it is at one moment, while the
server runs and goes on working; or of the store itself when none runs. It runs on
the server's host with the settings of the server and needs no token; the audit
trail records it.

The backup is encrypted to age recipients or by a passphrase, never written in the
clear, and appears under its name only when it is whole. It restores into an
embedded store and into a shared one, wherever it came from.

THE SEAL KEY IS NOT PART OF IT: keep a copy of SEAL_KEY_FILE in another place.
Without that key a backup cannot be restored, and with both all can be read.`
	cmd.Example = `  age-keygen -o backup-identity.txt        # keep it away from this host
  scaivault backup --recipient age1... --out /backup/scaivault-$(date +%F).age
  scaivault backup --recipient age1... --out - | ssh vault-backup 'cat > today.age'`
	flags := cmd.Flags()
	flags.StringVar(&out, "out", "", "file to write, or - for standard output")
	flags.StringArrayVar(&to.recipients, "recipient", nil, "age recipient that can decrypt it; may be repeated")
	flags.StringVar(&to.recipientsFile, "recipients-file", "", "file of age recipients, one a line")
	flags.StringVar(&to.passphraseFile, "passphrase-file", "", "file of a passphrase that decrypts it, in place of recipients")
	given = registerSettings(cmd)
	return cmd
}

func (a *app) backup(ctx context.Context, c *config.Config, out string, to []age.Recipient, names []string) error {
	var summary *backup.Summary
	write := func(w io.Writer) error {
		encrypted, err := backup.Encrypt(w, to...)
		if err != nil {
			return err
		}
		if summary, err = node.Backup(ctx, c, node.Options{Logger: a.logger(c), Version: build(a.Version).Version}, names, encrypted); err != nil {
			return err
		}
		return encrypted.Close()
	}
	switch {
	case out == "":
		return invalid("back up: --out says where to: a file, or - for standard output")
	case out == "-" && terminal(a.Out):
		return invalid("back up: a backup is no text for a terminal; name a file or a pipe")
	case out == "-":
		if err := write(a.Out); err != nil {
			return err
		}
	default:
		if err := folder.ReplaceBy(out, write); err != nil {
			return fmt.Errorf("back up to %s: %w", out, err)
		}
		if err := a.show(summary, summaryTable(summary)); err != nil {
			return err
		}
	}
	a.say("the seal key is not part of the backup: keep a copy of %s in another place", c.SealKeyFile)
	return nil
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) restoreCommand() *cobra.Command {
	var given settingFlags
	var by keysBy
	var in string
	var verify, acceptBroken bool
	cmd := a.local("restore --identity FILE --in FILE", "restore a backup into an empty store, on the server's host", 0,
		func(ctx context.Context, _ []string) error {
			c, err := a.loadConfig(given)
			if err != nil {
				return err
			}
			if in == "" {
				return invalid("restore: --in names the backup: a file, or - for standard input")
			}
			identities, err := by.read(a)
			if err != nil {
				return err
			}
			from := a.In
			if in != "-" {
				file, err := os.Open(in)
				if err != nil {
					return invalid("%w", err)
				}
				defer file.Close()
				from = file
			}
			r, err := backup.Decrypt(from, identities...)
			if err != nil {
				return err
			}
			if verify {
				return a.verifyBackup(ctx, c, r)
			}
			return a.restore(ctx, c, r, acceptBroken)
		})
	cmd.Long = `Restore a backup into an empty store, embedded (DATA_DIR) or shared (DATABASE_URL),
while no server runs on it. The seal key that the data were sealed by must be at
SEAL_KEY_FILE. Nothing is replaced: a store that holds data is refused. The backup
is verified to its end, and the audit trail in it, before the store can be opened;
a restore that was killed is simply run again.

The restored store is in quarantine: it can be read, but nothing is issued, renewed,
revoked or removed. It knows nothing of what happened after the backup:
  1. start the server, and look: scaivault dynamic engines reconcile ENGINE
     lists the accounts at the source that no lease bears: made since the backup.
  2. be sure that no other copy of the store goes on, and end the quarantine:
     scaivault resume --only-copy
     What has ended meanwhile is then revoked; what was made since stays.
  3. remove those accounts, when you know that nobody needs them:
     scaivault dynamic engines reconcile ENGINE --remove --restored
Tokens, policies and root passwords are those of the backup, too: what was revoked or
rotated since has to be again.

--verify reads the whole backup and touches no store: do that with each backup.`
	cmd.Example = `  scaivault restore --verify --identity backup-identity.txt --in today.age
  scaivault restore --data-dir /var/lib/scaivault --seal-key-file /etc/scaivault/seal.key \
    --identity backup-identity.txt --in today.age`
	flags := cmd.Flags()
	flags.StringVar(&in, "in", "", "file of the backup, or - for standard input")
	flags.StringArrayVar(&by.identityFiles, "identity", nil, "file of age identities; may be repeated")
	flags.StringVar(&by.passphraseFile, "passphrase-file", "", "file of the passphrase that it was encrypted by")
	flags.BoolVar(&verify, "verify", false, "only read and verify the backup")
	flags.BoolVar(&acceptBroken, "accept-broken-audit", false, "restore although the audit trail was broken when the backup was taken")
	given = registerSettings(cmd)
	return cmd
}

func (a *app) verifyBackup(ctx context.Context, c *config.Config, r *backup.Reader) error {
	summary, err := node.VerifyBackup(ctx, c, r)
	if err != nil {
		return err
	}
	if !summary.Authentic {
		a.say("the backup is whole; that a server of yours wrote it can only be told with the seal key, which is not at %s", c.SealKeyFile)
	}
	return a.show(summary, summaryTable(summary))
}

func (a *app) restore(ctx context.Context, c *config.Config, r *backup.Reader, acceptBroken bool) error {
	summary, err := node.Restore(ctx, c, node.Options{Logger: a.logger(c)}, r, acceptBroken)
	if err != nil {
		return err
	}
	if err := a.show(summary, summaryTable(summary)); err != nil {
		return err
	}
	a.say("the store is restored, and in quarantine: start the server, then: scaivault dynamic engines reconcile ENGINE")
	a.say("hint: tokens, policies and root passwords are those of %s; when no other copy of the store goes on: scaivault resume --only-copy",
		summary.CreatedAt.UTC().Format(time.RFC3339))
	return nil
}

func summaryTable(s *backup.Summary) func(t *table) {
	return func(t *table) {
		t.field("installation", s.Installation)
		t.field("created", s.CreatedAt)
		t.field("release", s.Release)
		for _, kind := range slices.Sorted(maps.Keys(s.Records)) {
			t.field(kind, s.Records[kind])
		}
		t.field("authentic", map[bool]string{true: "yes", false: "not known"}[s.Authentic])
	}
}

// keysTo say to whom a backup is encrypted.
type keysTo struct {
	recipients     []string
	recipientsFile string
	passphraseFile string
}

func (k *keysTo) read(a *app) ([]age.Recipient, error) {
	text := []byte(strings.Join(k.recipients, "\n"))
	if k.recipientsFile != "" {
		more, err := a.readFile(k.recipientsFile)
		if err != nil {
			return nil, err
		}
		text = append(append(text, '\n'), more...)
	}
	given := len(k.recipients) > 0 || k.recipientsFile != ""
	switch {
	case given == (k.passphraseFile != ""):
		return nil, invalid("back up: say who can decrypt it: by --recipient or --recipients-file, or else by --passphrase-file")
	case given:
		found, err := backup.ParseRecipients(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		return found, nil
	}
	phrase, err := a.readFile(k.passphraseFile)
	if err != nil {
		return nil, err
	}
	recipient, _, err := backup.Passphrase(phrase)
	if err != nil {
		return nil, invalid("%w", err)
	}
	return []age.Recipient{recipient}, nil
}

// names are what the audit trail is told.
func (k *keysTo) names() []string {
	names := append([]string{}, k.recipients...)
	if k.recipientsFile != "" {
		names = append(names, "file:"+k.recipientsFile)
	}
	if k.passphraseFile != "" {
		names = append(names, "passphrase")
	}
	return names
}

// keysBy decrypt a backup.
type keysBy struct {
	identityFiles  []string
	passphraseFile string
}

func (k *keysBy) read(a *app) ([]age.Identity, error) {
	var all []age.Identity
	for _, file := range k.identityFiles {
		text, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		found, err := backup.ParseIdentities(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		all = append(all, found...)
	}
	if k.passphraseFile != "" {
		text, err := a.readFile(k.passphraseFile)
		if err != nil {
			return nil, err
		}
		_, identity, err := backup.Passphrase(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		all = append(all, identity)
	}
	if len(all) == 0 {
		return nil, invalid("restore: --identity or --passphrase-file says what decrypts the backup")
	}
	return all, nil
}
