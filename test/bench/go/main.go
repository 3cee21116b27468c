// A login and a check as one writes them in Go: net/http both ways, redigo's pool. Like the other
// peers it does less than wxlogind: no claim on the code, no index of a user's sessions,
// session_key as it came.
package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	ttl       = 604800
	wechatMax = 64
	redisMax  = 128
)

type session struct {
	AppID      string `json:"appid"`
	OpenID     string `json:"openid"`
	UnionID    string `json:"unionid"`
	SessionKey string `json:"session_key"`
}

type server struct {
	redis               *redis.Pool
	wechat              *http.Client
	base, appID, secret string
}

func answer(w http.ResponseWriter, status int, value interface{}) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]string{"error": code})
}

func (s *server) user(code string) (session, error) {
	query := url.Values{"appid": {s.appID}, "secret": {s.secret}, "js_code": {code},
		"grant_type": {"authorization_code"}}
	found := session{}
	reply, err := s.wechat.Get(s.base + "/sns/jscode2session?" + query.Encode())
	if err != nil {
		return found, err
	}
	defer reply.Body.Close()
	err = json.NewDecoder(reply.Body).Decode(&found)
	found.AppID = s.appID
	return found, err
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Code string }
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Code == "" {
		refuse(w, 400, "invalid_request")
		return
	}
	found, err := s.user(asked.Code)
	if err != nil {
		refuse(w, 503, "wechat_unavailable")
		return
	}
	if found.OpenID == "" {
		refuse(w, 401, "invalid_code")
		return
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		refuse(w, 500, "internal")
		return
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	value, _ := json.Marshal(found)
	c := s.redis.Get()
	defer c.Close()
	if _, err := c.Do("SET", "s:"+token, value, "EX", ttl); err != nil {
		refuse(w, 503, "store_unavailable")
		return
	}
	answer(w, 200, struct {
		Token     string `json:"third_session"`
		ExpiresIn int    `json:"expires_in"`
	}{token, ttl})
}

func (s *server) auth(w http.ResponseWriter, r *http.Request) {
	c := s.redis.Get()
	defer c.Close()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	value, err := redis.Bytes(c.Do("GET", "s:"+token))
	var found session
	if err == redis.ErrNil {
		w.WriteHeader(401)
		return
	} else if err != nil || json.Unmarshal(value, &found) != nil {
		w.WriteHeader(503)
		return
	}
	h := w.Header()
	h.Set("X-Wx-Appid", found.AppID)
	h.Set("X-Wx-Openid", found.OpenID)
	h.Set("X-Wx-Unionid", found.UnionID)
}

func main() {
	transport := &http.Transport{MaxIdleConnsPerHost: wechatMax, MaxConnsPerHost: wechatMax}
	if file := os.Getenv("CA"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	s := &server{
		redis: &redis.Pool{MaxIdle: redisMax, MaxActive: redisMax, Wait: true, Dial: func() (redis.Conn, error) {
			return redis.Dial("unix", os.Getenv("REDIS"))
		}},
		wechat: &http.Client{Transport: transport, Timeout: 5 * time.Second},
		base:   os.Getenv("WECHAT"), appID: os.Getenv("APPID"), secret: os.Getenv("SECRET"),
	}
	http.HandleFunc("/v1/login", s.login)
	http.HandleFunc("/internal/auth", s.auth)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
