package cli

import (
	"maps"
	"slices"
	"testing"
)

func TestSourceFieldsTakesAConnectionURLApart(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]map[string]string{
		"postgresql://{{username}}:{{password}}@db.internal:5433/support": {
			"host": "db.internal", "port": "5433", "database": "support"},
		"postgres://{{username}}:{{password}}@db/a%20b?connect_timeout=3&sslmode=verify-full": {
			"host": "db", "port": "5432", "database": "a b", "sslmode": "verify-full"},
		"postgresql://{{username}}:{{password}}@a,b:6000,[::1]:7000/x": {
			"host": "a,b,::1", "port": "5432,6000,7000", "database": "x"},
		"postgresql://db?sslmode=disable":                              {"host": "db", "port": "5432", "sslmode": "disable"},
		"mysql://{{username}}:{{password}}@db.internal/shop?tls=true":  {"host": "db.internal", "port": "3306", "database": "shop"},
		"{{username}}:{{password}}@tcp(db.internal:3307,other)/":       {"host": "db.internal", "port": "3307"},
		"redis://{{username}}:{{password}}@cache.internal":             {"host": "cache.internal", "port": "6379", "tls": "false"},
		"rediss://{{username}}:{{password}}@a:7000,b:7001/0":           {"host": "a,b", "port": "7000,7001", "tls": "true", "database": "0"},
		"redis+sentinel://{{username}}:{{password}}@s1:26379/mymaster": nil,
		"mongodb://{{username}}:{{password}}@a:27018,b/users?tls=true": {"host": "a,b", "port": "27018,27017", "database": "users"},
		"mongodb+srv://{{username}}:{{password}}@cluster.example.com/": nil,
		"nonsense":      nil,
		"postgresql://": nil,
	} {
		if got := sourceFields(url); !maps.Equal(got, want) {
			t.Errorf("%s gives %v, want %v", url, got, want)
		}
	}
}

func TestEnvironmentNamesTheFieldsThatWereAskedFor(t *testing.T) {
	t.Parallel()
	fields := map[string]string{"username": "u", "password": "p", "host": "h", "lease_id": "l", "uri": "m", "access_token": "t", "odd": "a@/ +b", "access_key_id": "k", "secret_access_key": "s", "session_token": "", "region": "r", "client_id": "c", "client_secret": "s", "tenant_id": "t"}
	for _, try := range []struct {
		plugin  string
		mapping map[string]string
		want    []string
		fails   bool
	}{
		{plugin: "postgresql", want: []string{"PGHOST=h", "PGPASSWORD=p", "PGUSER=u"}},
		{plugin: "", want: []string{"PGHOST=h", "PGPASSWORD=p", "PGUSER=u"}},
		{plugin: "redis", want: []string{"REDISCLI_AUTH=p", "REDIS_HOST=h", "REDIS_PASSWORD=p", "REDIS_USERNAME=u"}},
		{plugin: "aws", want: []string{"AWS_ACCESS_KEY_ID=k", "AWS_REGION=r", "AWS_SECRET_ACCESS_KEY=s", "AWS_SESSION_TOKEN="}},
		{plugin: "mongodb", want: []string{"MONGODB_URI=m"}},
		{plugin: "mysql", want: []string{"MYSQL_HOST=h", "MYSQL_PWD=p", "MYSQL_USER=u"}},
		{plugin: "gcp", want: []string{"CLOUDSDK_AUTH_ACCESS_TOKEN=t", "GOOGLE_OAUTH_ACCESS_TOKEN=t"}},
		{plugin: "azure", want: []string{"ARM_CLIENT_ID=c", "ARM_CLIENT_SECRET=s", "ARM_TENANT_ID=t", "AZURE_CLIENT_ID=c", "AZURE_CLIENT_SECRET=s", "AZURE_TENANT_ID=t"}},
		{plugin: "another", fails: true},
		{plugin: "another", mapping: map[string]string{"WHO": "username"}, want: []string{"WHO=u"}},
		{plugin: "postgresql", mapping: map[string]string{"WHO": "username"}, want: []string{"WHO=u"}},
		{plugin: "postgresql", mapping: map[string]string{"WHO": "nobody"}, fails: true},
		{plugin: "mysql", mapping: map[string]string{"DSN": "mysql://{{username}}:{{odd|url}}@{{host}}/{{odd}}"}, want: []string{"DSN=mysql://u:a%40%2F%20%2Bb@h/a@/ +b"}},
		{plugin: "mysql", mapping: map[string]string{"DSN": "{{nobody}}"}, fails: true},
		{plugin: "mysql", mapping: map[string]string{"DSN": "{{username"}, fails: true},
		{plugin: "mysql", mapping: map[string]string{"DSN": "{{username|html}}"}, fails: true},
	} {
		got, err := connection{plugin: try.plugin, fields: fields}.environment(try.mapping)
		if (err != nil) != try.fails || !slices.Equal(got, try.want) {
			t.Errorf("%s, %v gives %v, %v; want %v", try.plugin, try.mapping, got, err, try.want)
		}
	}
}

func TestMongodbURI(t *testing.T) {
	t.Parallel()
	credential := map[string]string{"username": "v_reader_1", "password": "a-B_9", "database": "app"}
	for from, want := range map[string]string{
		"mongodb://{{username}}:{{password}}@a:27018,b/users?tls=true&replicaSet=rs0":     "mongodb://v_reader_1:a-B_9@a:27018,b/?authSource=app&replicaSet=rs0&tls=true",
		"mongodb://{{username}}:{{password}}@127.0.0.1:27017":                             "mongodb://v_reader_1:a-B_9@127.0.0.1:27017/?authSource=app",
		"mongodb+srv://{{username}}:{{password}}@cluster.example.com/?authSource=another": "mongodb+srv://v_reader_1:a-B_9@cluster.example.com/?authSource=app",
	} {
		if got := mongodbURI(from, credential); got != want {
			t.Errorf("%s becomes %s, want %s", from, got, want)
		}
	}
}

func TestMongodbRoles(t *testing.T) {
	t.Parallel()
	roles, err := mongodbRoles([]string{"read@app", "a@b@c"})
	if err != nil || len(roles) != 2 || roles[0]["role"] != "read" || roles[0]["db"] != "app" || roles[1]["role"] != "a@b" || roles[1]["db"] != "c" {
		t.Errorf("%v, %v", roles, err)
	}
	for _, bad := range []string{"", "read", "@app", "read@"} {
		if _, err := mongodbRoles([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A source decides what a user is named and what its errors say; a terminal must
// not obey it.
func TestControlCharactersDoNotReachTheTerminal(t *testing.T) {
	t.Parallel()
	if got := printable("a\x1b[2Jb\rc\nd\u0085e"); got != "a�[2Jb�c d�e" {
		t.Errorf("got %q", got)
	}
}
