package server

// Route is what the access matrix needs of a route.
type Route struct {
	Method, Pattern string
	Scopes          []string
	Public, Body    bool
}

// Routes is the table of all routes.
func Routes() []Route {
	var all []Route
	for _, rt := range (&Server{}).routes() {
		all = append(all, Route{Method: rt.method, Pattern: rt.pattern, Scopes: rt.scopes, Public: rt.public,
			Body: rt.consumes == typeJSON})
	}
	return all
}

// CheckPath is the front's judgement of a path as it stands in the request line.
func CheckPath(raw string) error { return checkPath(raw) }
