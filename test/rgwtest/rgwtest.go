// Package rgwtest gives tests the object gateway of a Ceph, RGW, which speaks IAM: a second opinion on
// what the engine for AWS relies on, above all on conditions of policies, which it evaluates itself.
//
// A Ceph of one monitor and one store in memory runs on loopback, without authentication of its parts
// among each other; the gateway checks the signatures of requests. It belongs to one test, is stopped at
// its end and leaves nothing.
//
// RGW has no GetCallerIdentity, with which the engine begins: Identity answers that request, and none
// other, for the root user of the account. It does not look at signatures.
package rgwtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/awstest"
	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

const (
	account      = "RGW12345678901234567"
	osdPorts     = 8
	adminTimeout = 2 * time.Minute // it waits until the store is up
)

// Server is a gateway with the root user of one account.
type Server struct {
	URL      string // of IAM
	Identity string // URL of what answers GetCallerIdentity
	Root     awstest.Keys

	bin, dir string
}

// Start runs a gateway until the end of the test.
func Start(t *testing.T) *Server {
	t.Helper()
	checkout, err := servertest.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{bin: filepath.Join(checkout, ".cache", "rgw", "bin"), dir: t.TempDir(), Root: awstest.Keys{ID: rand.Text()[:20], Secret: rand.Text()}}
	if _, err := os.Stat(s.bin); err != nil {
		t.Fatalf("there is no %s: run scripts/install-rgw.sh", s.bin)
	}
	identity := httptest.NewServer(http.HandlerFunc(callerIdentity))
	t.Cleanup(identity.Close)
	s.Identity = identity.URL

	monitor, gateway := address(t), address(t)
	s.URL = "http://" + gateway
	s.configure(t, monitor, gateway)
	id := uuid()
	s.do(t, "monmaptool", "--create", "--fsid", id, "--addv", "a", "[v2:"+monitor+"]", s.path("monmap"))
	s.do(t, "osdmaptool", "--createsimple", "1", s.path("osdmap"))
	s.do(t, "ceph-mon", "-i", "a", "--mkfs", "--fsid", id, "--monmap", s.path("monmap"), "--osdmap", s.path("osdmap"))
	s.run(t, listens(monitor), "ceph-mon", "-f", "-i", "a")
	s.do(t, "ceph-osd", "-i", "0", "--mkfs")
	s.run(t, func() bool { return true }, "ceph-osd", "-f", "-i", "0")
	s.do(t, "radosgw-admin", "account", "create", "--account-id", account, "--account-name", "tests")
	s.do(t, "radosgw-admin", "user", "create", "--uid", "root", "--display-name", "root", "--account-id", account, "--account-root",
		"--access-key", s.Root.ID, "--secret-key", s.Root.Secret)
	s.run(t, listens(gateway), "radosgw", "-f", "-n", "client.rgw")
	return s
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// configure writes the ceph.conf of all parts. One copy of everything is enough.
func (s *Server) configure(t *testing.T, monitor, gateway string) {
	t.Helper()
	distances := make([]int, osdPorts-1)
	for i := range distances {
		distances[i] = i + 1
	}
	first, err := freeport.Pick(distances...)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`[global]
mon host = [v2:%s]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms bind port min = %d
ms bind port max = %d
auth cluster required = none
auth service required = none
auth client required = none
# Encrypted connections need authentication, and the gateway wants them unless told otherwise.
ms mon client mode = crc
keyring =
admin socket =
run dir = %[4]s
crash dir = %[4]s
log file = %[4]s/$name.log
mon cluster log file = %[4]s/cluster.log
mon data = %[4]s/mon
mon data avail warn = 0
mon data avail crit = 0
mon allow pool size one = true
osd data = %[4]s/osd
osd objectstore = memstore
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
rgw data = %[4]s/rgw
rgw frontends = beast endpoint=%[5]s
rgw enable apis = s3, iam
rgw run sync thread = false
# Its threads take a minute to end.
rgw exit timeout secs = 3
`, monitor, first, first+osdPorts-1, s.dir, gateway)
	for _, name := range []string{"mon", "osd", "rgw"} {
		if err := os.Mkdir(s.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.path("ceph.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// do runs a program to its end.
func (s *Server) do(t *testing.T, program string, arguments ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), adminTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), append([]string{"-c", s.path("ceph.conf")}, arguments...)...)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// run starts a part, which is told to end when the test ends, after those that were started later.
func (s *Server) run(t *testing.T, ready func() bool, program string, arguments ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, program), append([]string{"-c", s.path("ceph.conf")}, arguments...)...) //nolint:noctx // ended below
	cmd.Dir = s.dir
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	p, err := servertest.Start(cmd, ready)
	if err != nil {
		t.Fatalf("start %s: %v: %s", program, err, output.String())
	}
	t.Cleanup(func() {
		err := p.Signal(syscall.SIGTERM)
		if err == nil {
			_, err = p.Wait()
		}
		if err != nil {
			t.Errorf("stop %s: %v", program, err)
			_ = p.Kill() // it is gone already, or gone now
		}
	})
}

func address(t *testing.T) string {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func listens(address string) func() bool {
	return func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second) //nolint:noctx // on loopback: at once or never
		return err == nil && c.Close() == nil
	}
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func callerIdentity(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/xml")
	if r.FormValue("Action") != "GetCallerIdentity" {
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	fmt.Fprintf(w, "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::%[1]s:root</Arn><UserId>%[1]s</UserId><Account>%[1]s</Account>"+
		"</GetCallerIdentityResult></GetCallerIdentityResponse>", account)
}
