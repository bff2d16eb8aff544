package api

// SSHVerifyRequest is a one-time password that somebody presented to a host as the password of an
// account.
type SSHVerifyRequest struct {
	OTP      string `json:"otp"`
	Username string `json:"username"`
	IP       string `json:"ip"` // the host's own address, for which the password was made
	// ClientIP is the address that the login comes from; a password that was made for one is good from
	// there alone.
	ClientIP string `json:"client_ip,omitempty"`
}

// SSHVerification says that a one-time password was right. It is used up.
type SSHVerification struct {
	Valid    bool   `json:"valid"`
	Username string `json:"username"`
	IP       string `json:"ip"`
	Role     string `json:"role"`
	LeaseID  string `json:"lease_id"`
}
