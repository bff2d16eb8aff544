package failpoints_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrixSSH kills the server at every point that is reached with certificates and one-time
// passwords. Nobody was given what was not confirmed: it is revoked, and the serial of a certificate is in
// the list, as is every other that was revoked.
func TestCrashMatrixSSH(t *testing.T) {
	t.Parallel()
	var store *pgtest.Server
	if full() {
		store = pgtest.Start(t, 17)
	}
	for mode, inMode := range map[string]func() target{"certificates": certificates, "passwords": passwords} {
		for _, s := range withoutSource(mode == "certificates") {
			if !full() && (!slices.Contains([]failpoint.Point{failpoint.F4, failpoint.Found, failpoint.R1, failpoint.RootPromoted}, s.point) || mode == "passwords" && s.point != failpoint.F4) {
				continue
			}
			t.Run(mode+"/"+string(s.point), func(t *testing.T) {
				t.Parallel()
				inMode().play(t, s, newRole(), vaulttest.StartProgram(t, vaulttest.Failing(t)))
			})
			if store != nil {
				t.Run(mode+"/shared/"+string(s.point), func(t *testing.T) {
					t.Parallel()
					inMode().play(t, s, newRole(), vaulttest.StartNodes(t, vaulttest.Failing(t), 2, store.SuperURL(store.CreateDB(t)))...)
				})
			}
		}
	}
}

// withoutSource are the points where there is no source.
func withoutSource(certificates bool) []scenario {
	ended, given := absent, closed
	if certificates {
		ended, given = listed(absent), listed(closed)
	}
	all := []scenario{
		{point: failpoint.F1, reach: issuing, found: nothing},
		{point: failpoint.IntentOpen, reach: issuing, found: nothing},
		{point: failpoint.F2, reach: issuing, found: ended},
		{point: failpoint.F4, reach: issuing, found: ended}, // it is signed
		{point: failpoint.F6, reach: issuing, found: ended},
		{point: failpoint.Found, reach: recovering, found: ended},
		{point: failpoint.F7, reach: issuing, found: confirmed},
		{point: failpoint.F8, reach: issuing, found: confirmed},
		{point: failpoint.F9, reach: issuing, found: confirmed},
		{point: failpoint.Fenced, reach: revokingPrefix, found: given, ends: true},
		{point: failpoint.R1, reach: revoking, found: given, ends: true},
		{point: failpoint.R5, reach: revoking, found: given, ends: true},
	}
	if !certificates {
		return append(all, scenario{point: failpoint.R4, reach: revoking, found: given, ends: true})
	}
	for _, p := range []failpoint.Point{failpoint.RootPlanned, failpoint.RootKept, failpoint.RootSet, failpoint.RootProved, failpoint.RootPromoted, failpoint.RootDone} {
		all = append(all, scenario{point: p, reach: rotating, found: rotatable})
	}
	return all
}

// listed wants the certificates of all revoked leases in the list, and of no other, besides what else is
// wanted.
func listed(wanted func(*testing.T, *world, []api.Lease, api.Credential) string) func(*testing.T, *world, []api.Lease, api.Credential) string {
	return func(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
		t.Helper()
		list := published(t, w.other(), "krl")
		for _, l := range leases {
			serial, err := strconv.ParseUint(l.Username, 10, 64)
			if err != nil {
				t.Fatalf("the lease's name is no serial: %v", err)
			}
			if is := bytes.Contains(list, binary.BigEndian.AppendUint64(nil, serial)); is != (l.Status == api.LeaseRevoked) {
				t.Errorf("lease %s is %s, and listed: %t", l.LeaseID, l.Status, is)
			}
		}
		return wanted(t, w, leases, subject) + ", listed"
	}
}

// published reads what anybody may read of the engine.
func published(t *testing.T, node *vaulttest.Server, what string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, node.URL+"/v1/dynamic/engines/db/ssh/"+what, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		t.Fatalf("read what is published: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("read what is published: %s, %v", response.Status, err)
	}
	return body
}

func certificates() target {
	root := map[string]string{"private_key": caKey}
	return target{
		engine: "ssh",
		config: client.Document{"krl_max_age": "1s"},
		form:   client.Document{"allowed_users": []string{"deploy"}, "generate_key": true},
		root:   root,
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(data["signed_key"]))
			if err != nil {
				return err
			}
			c, ok := key.(*ssh.Certificate)
			if !ok {
				return fmt.Errorf("it is a %T", key)
			}
			return new(ssh.CertChecker).CheckCert("deploy", c)
		},
	}
}

// caKey is of a test only.
const caKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
`

func passwords() target {
	return target{
		engine: "ssh",
		config: client.Document{"mode": "otp"},
		form:   client.Document{"allowed_users": []string{"deploy"}, "cidr_list": []string{"10.0.0.0/8"}},
		params: map[string]any{"ip": "10.1.2.3"},
		login:  func(*testing.T, map[string]string) error { return nil }, // it would be used up
	}
}
