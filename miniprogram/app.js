const common = require("./common/common.js");

App({
  /** The latest login. A page may load before it ends: getApp().loginReady.then(...). */
  loginReady: null,

  onLaunch() {
    common.configure({
      // Where wxlogind answers. For a release: the https name that you entered in the WeChat console.
      baseUrl: "http://127.0.0.1:8080",
    });
    this.login();
  },

  /** Also for pages that offer it again after it failed. */
  login() {
    this.setLogin(common.userLogin());
    return this.loginReady;
  },

  logout() {
    return common.logout().then((result) => {
      this.setLogin(Promise.reject(Object.assign(new Error("logged out"), { code: "logged_out" })));
      return result;
    });
  },

  setLogin(login) {
    this.loginReady = login;
    // Pages say what went wrong. This only keeps a login that no page waits for from being an unhandled rejection.
    login.catch(() => {});
  },
});
