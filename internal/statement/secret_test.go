package statement_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/statement"
)

func TestSecretMasksItself(t *testing.T) {
	t.Parallel()
	const clear = "hunter2"
	secret := statement.Secret(clear)
	held := struct {
		Password statement.Secret
		Pointer  *statement.Secret
		Many     []statement.Secret
		Keyed    map[string]statement.Secret
	}{secret, &secret, []statement.Secret{secret}, map[string]statement.Secret{"k": secret}}

	outputs := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%10s", "%T %[1]v"} {
		outputs["verb "+verb] = fmt.Sprintf(verb, secret)
		outputs["held "+verb] = fmt.Sprintf(verb, held)
	}
	outputs["print"] = fmt.Sprint(secret)
	outputs["error"] = fmt.Errorf("login with %v: %w", secret, errors.New("refused")).Error()

	document, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	outputs["json"] = string(document)
	type account struct{ Password statement.Secret }
	document, err = xml.Marshal(account{secret})
	if err != nil {
		t.Fatal(err)
	}
	outputs["xml"] = string(document)

	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("made", "password", secret, "group", slog.GroupValue(slog.Any("p", secret)), "all", held)
	}
	outputs["log"] = log.String()

	for name, output := range outputs {
		for _, leak := range []string{clear, fmt.Sprintf("%x", clear), fmt.Sprintf("%X", clear), fmt.Sprintf("% x", clear)} {
			if strings.Contains(output, leak) {
				t.Errorf("%s shows the secret: %s", name, output)
			}
		}
	}
	if secret.Reveal() != clear {
		t.Error("Reveal does not answer the text")
	}
	if _, err := secret.Value(); err == nil {
		t.Error("a secret can be written to a table")
	}
}

func TestSecretIsReadFromJSON(t *testing.T) {
	t.Parallel()
	var body struct{ Password statement.Secret }
	if err := json.Unmarshal([]byte(`{"Password":"hunter2"}`), &body); err != nil {
		t.Fatal(err)
	}
	if !body.Password.Equal("hunter2") || body.Password.Equal("hunter3") || body.Password.Equal("hunter22") {
		t.Error("Equal is wrong")
	}
}
