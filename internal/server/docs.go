package server

import (
	"fmt"
	"html"
	"strings"
)

// docsRoute is the contract for people: every operation in one page, made from the table of
// routes. It loads nothing and runs nothing.
func (s *Server) docsRoute() route {
	return raw("/docs", "text/html; charset=utf-8", "This contract as a page to read.", func(*call) ([]byte, error) {
		return s.page()
	})
}

// docsPage renders the page.
func docsPage(routes []route) []byte {
	var b strings.Builder
	b.WriteString(`<!doctype html><html lang="en"><meta charset="utf-8"><title>ScaiVault: HTTP interface</title>
<h1>ScaiVault: HTTP interface</h1>
<p>All paths are below <code>/v1</code>. Send <code>Authorization: Bearer TOKEN</code>, except where the last column says public.
For programs: <a href="openapi.yaml">openapi.yaml</a>.</p>
<table border="1" cellpadding="4"><tr><th>Method<th>Path<th>What it does<th>Parameters<th>Scopes of the token, any of
`)
	for _, rt := range routes {
		scopes := strings.Join(rt.scopes, ", ")
		switch {
		case rt.public:
			scopes = "public"
		case scopes == "":
			scopes = "none"
		}
		var params []string
		for _, p := range rt.params {
			params = append(params, p.name)
		}
		fmt.Fprintf(&b, "<tr><td>%s<td><code>%s</code><td>%s<td>%s<td>%s\n", rt.method, html.EscapeString(rt.pattern),
			html.EscapeString(rt.doc), html.EscapeString(strings.Join(params, ", ")), html.EscapeString(scopes))
	}
	b.WriteString("</table></html>\n")
	return []byte(b.String())
}
