const common = require("./common/common.js");

App({
  /** The latest login. A page may load before it ends: getApp().loginReady.then(...). */
  loginReady: null,

  /**
   * Where pictures are uploaded to, as "https://api.example.com/avatar". Empty: they stay on this
   * phone. docs/examples/avatar is such a server. Name its origin in `origins` as well.
   */
  avatarUpload: "",

  /**
   * Where orders of virtual payment are made, as "https://api.example.com". Empty: none are.
   * docs/examples/virtual-payment is such a server. Name its origin in `origins` as well.
   */
  payBackend: "",

  onLaunch() {
    common.configure({
      // Where wxlogind answers. For a release: the https name that you entered in WeChat's console.
      baseUrl: "http://127.0.0.1:8080",
    });
    this.login();
  },

  /** Also for pages that offer it again after it failed. */
  login() {
    return this.setLogin(common.userLogin());
  },

  logout() {
    return this.leaveBy(common.logout());
  },

  /** The server erases the user. */
  closeAccount() {
    return this.leaveBy(common.closeAccount());
  },

  /** Once `leaving` is done, pages find nobody logged in. */
  leaveBy(leaving) {
    return leaving.then((result) => {
      this.setLogin(Promise.reject(Object.assign(new Error("logged out"), { code: "logged_out" })));
      return result;
    });
  },

  setLogin(login) {
    // A phone that cannot store the session is logged in all the same, until the mini program ends.
    const ready = login.catch((error) => {
      if (error.code !== "storage") {
        throw error;
      }
    });
    this.loginReady = ready;
    // Pages say what went wrong. This keeps a login that no page waits for from being an unhandled
    // rejection.
    ready.catch(() => {});
    return ready;
  },
});
