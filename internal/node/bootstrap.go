package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/identity"
)

// Bootstrap writes a new administrator's token of 24 hours to DATA_DIR/bootstrap-token and answers
// the file's path: by the running server, or, where none runs, on the store itself. It is for who
// has the host in hand.
func Bootstrap(ctx context.Context, c *config.Config, o Options) (path string, err error) {
	path = newTokenFile(c.DataDir, o.Logger).path
	running, err := askServer(ctx, c.DataDir)
	if running || err != nil {
		return path, err
	}
	if _, exists, err := peek(ctx, c); err != nil {
		return "", err
	} else if !exists {
		return "", fmt.Errorf("make a bootstrap token: there is no store in %s; set DATA_DIR or DATABASE_URL", place(c))
	}
	st, _, _, err := openStore(ctx, c, o.Logger)
	if err != nil {
		return "", err
	}
	p := &parts{store: st, tokenFile: newTokenFile(c.DataDir, o.Logger)}
	p.identity = identity.New(identity.Config{Store: st, Logger: o.Logger,
		Door: access.New(access.Config{Store: st, Logger: o.Logger})})
	first, err := p.identity.Bootstrap(ctx)
	switch {
	case err != nil:
	case first != nil:
		err = p.tokenFile.write(first)
	default:
		err = p.newBootstrapToken(ctx)
	}
	return path, errors.Join(err, st.Close())
}

// askControl asks the running server over its control socket; no answer when there is none.
func askControl(ctx context.Context, dir, target string, body io.Reader) (*http.Response, error) {
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", filepath.Join(dir, controlFile))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://control"+target, body)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil //nolint:nilnil // no answer is one
	}
	if err != nil {
		return nil, fmt.Errorf("ask the running server: %w", err)
	}
	return resp, nil
}

// askServer asks the running server for a bootstrap token; running is false when there is none.
func askServer(ctx context.Context, dir string) (running bool, err error) {
	resp, err := askControl(ctx, dir, bootstrapTarget, nil)
	if err != nil || resp == nil {
		return err != nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return true, errors.New("ask the running server for a bootstrap token: it failed; see the server's log")
	}
	return true, nil
}
