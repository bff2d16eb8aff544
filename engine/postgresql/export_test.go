package postgresql

// NormalGrants is the normal form of the entries of privileges.
func NormalGrants(entries []string) ([]string, error) {
	grants, err := parseGrants(entries)
	var normal []string
	for _, g := range grants {
		normal = append(normal, g.String())
	}
	return normal, err
}
