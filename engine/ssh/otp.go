package ssh

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// otpSeparator stands between the two parts of a one-time password, and in neither: the name of its
// lease, by which it is found, and the secret, of which only a hash is kept. The secret is random, of
// 128 bits and more, so that the hash needs no salt.
const otpSeparator = "-"

// maxNameBytes bounds the first part: people may have to type it.
const maxNameBytes = 48

// planOTP makes a one-time password for one account of one host.
func (e *Engine) planOTP(r engine.PlanRequest, role *role) (*engine.Plan, error) {
	wish, err := readOTPWish(r, role)
	if err != nil {
		return nil, err
	}
	username, err := role.account(wish.Username)
	if err != nil {
		return nil, err
	}
	address, err := role.address(wish.IP)
	if err != nil {
		return nil, err
	}
	from, err := role.client(wish.ClientIP)
	if err != nil {
		return nil, err
	}
	name, secret := e.options.Namer.New(r.RoleName, maxNameBytes), rand.Text()
	plan := &engine.Plan{
		LeaseID: r.LeaseID, Username: name, Role: role, ExpiresAt: r.ExpiresAt,
		Recipe: recipe{LeaseID: r.LeaseID, Ends: r.ExpiresAt.Unix(), OTPHash: hashOTP(secret),
			Username: username, Address: address.String(), Client: from}.encode(),
		Data: map[string]statement.Secret{
			"username": statement.Secret(username), "ip": statement.Secret(address.String()),
			"otp":  statement.Secret(name + otpSeparator + secret),
			"port": statement.Secret(strconv.Itoa(role.port())),
		},
	}
	if from != "" {
		plan.Data["client_ip"] = statement.Secret(from)
	}
	return plan, nil
}

// otpWish is a request's own fields in mode otp.
type otpWish struct {
	Username string `json:"username"`
	IP       string `json:"ip"`        // of the host
	ClientIP string `json:"client_ip"` // from which it is to be good; empty for everywhere
}

func readOTPWish(r engine.PlanRequest, role *role) (wish otpWish, err error) {
	if r.DryRun {
		address := role.networks[0].Addr().String()
		return otpWish{IP: address, ClientIP: address}, nil
	}
	return wish, readWish(r.Params, &wish)
}

// account is the one that is asked for, or the role's own.
func (r *role) account(asked string) (string, error) {
	users := r.users()
	switch {
	case asked == "" && r.DefaultUser != "":
		return r.DefaultUser, nil
	case asked == "" && len(users) == 1:
		return users[0], nil
	case asked == "":
		return "", refused("username is missing: name one of the accounts that the role allows")
	}
	return asked, r.allows(asked)
}

// address is the host's, which the role must allow.
func (r *role) address(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, refused("ip is missing: name the address of the host that the password is for")
	}
	address, err := plainAddress(text)
	if err != nil {
		return netip.Addr{}, refused("ip is not an IP address")
	}
	for _, network := range r.networks {
		if network.Contains(address) {
			return address, nil
		}
	}
	return netip.Addr{}, refused("ip %s is in none of the role's networks (cidr_list)", address)
}

// client is the address from which alone the password is good; empty where any is.
func (r *role) client(text string) (string, error) {
	if text == "" && !r.RequireClientIP {
		return "", nil
	}
	address, err := plainAddress(text)
	if err != nil {
		return "", refused("client_ip is missing or not an IP address: name the one from which the login comes, as the host sees it")
	}
	return address.String(), nil
}

// plainAddress reads an address without a zone; one of IPv4 has one form only.
func plainAddress(text string) (netip.Addr, error) {
	address, err := netip.ParseAddr(text)
	return address.Unmap().WithZone(""), err
}

func hashOTP(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// NameIn implements engine.OneTime.
func (Type) NameIn(secret statement.Secret) string {
	name, _, _ := strings.Cut(secret.Reveal(), otpSeparator)
	return name
}

// Accepts implements engine.OneTime.
func (Type) Accepts(raw engine.Recipe, p engine.Presented) bool {
	r, err := readRecipe(raw)
	if err != nil || r.OTPHash == "" || !r.Issued {
		return false
	}
	_, secret, _ := strings.Cut(p.Secret.Reveal(), otpSeparator)
	address, err := plainAddress(p.Address)
	if err != nil {
		return false
	}
	if r.Client != "" {
		if from, err := plainAddress(p.Client); err != nil || from.String() != r.Client {
			return false
		}
	}
	return subtle.ConstantTimeCompare([]byte(hashOTP(secret)), []byte(r.OTPHash))&
		subtle.ConstantTimeCompare([]byte(p.Username), []byte(r.Username))&
		subtle.ConstantTimeCompare([]byte(address.String()), []byte(r.Address)) == 1
}
