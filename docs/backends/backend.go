// A backend that asks wxlogind itself who is calling. Go's own library, nothing else: go run backend.go
package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

var client = &http.Client{Timeout: 2 * time.Second}

type session struct {
	Active bool   `json:"active"`
	Openid string `json:"sub"`
}

func ask(r *http.Request) (s session, err error) {
	form := url.Values{"token": {strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}}
	request, err := http.NewRequest("POST", os.Getenv("WXLOGIND")+"/internal/introspect", strings.NewReader(form.Encode()))
	if err != nil {
		return s, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("X-Internal-Token", os.Getenv("WX_INTERNAL_TOKEN"))
	answer, err := client.Do(request)
	if err != nil {
		return s, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return s, errors.New(answer.Status)
	}
	return s, json.NewDecoder(answer.Body).Decode(&s)
}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s, err := ask(r)
		switch {
		case err != nil:
			w.WriteHeader(503)
		case !s.Active:
			w.WriteHeader(401)
		default:
			w.Write([]byte(s.Openid))
		}
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
