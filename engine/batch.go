package engine

import "slices"

// RevokeEach is a batch of revocations in which several recipes may be of one account: each account is
// ended once, at most so many together, and every recipe has the result of its account. An account that
// end says nothing of is dead. The results are in the order of the recipes.
func RevokeEach[A comparable](rs []Recipe, together int, account func(Recipe) (A, error), end func([]A) map[A]Result) []Result {
	results := make([]Result, len(rs))
	places := map[A][]int{} // of each account in rs
	var accounts []A
	for i, r := range rs {
		a, err := account(r)
		if err != nil {
			results[i].Err = err
			continue
		}
		if places[a] == nil {
			accounts = append(accounts, a)
		}
		places[a] = append(places[a], i)
	}
	for chunk := range slices.Chunk(accounts, together) {
		for a, result := range end(chunk) {
			for _, i := range places[a] {
				results[i] = result
			}
		}
	}
	return results
}
