const common = require("../../common/common.js");

/** What the user reads, for the errors of which they can be told more than "try again". */
const PROBLEMS = {
  wx_login: "微信没有给出登录凭证 · WeChat gave no code",
  invalid_code: "微信拒绝了登录凭证 · WeChat refused the code",
  user_blocked: "此账号暂时不能登录 · This account may not log in",
  network: "网络不通 · No network",
  timeout: "等待超时 · No answer in time",
  wechat_unavailable: "微信暂时没有应答 · WeChat does not answer just now",
  logged_out: "",
  rate_limited: "登录太频繁，请稍后再试 · Too many logins, try again later",
};

function problemText(error) {
  if (error.reason === "replaced") {
    return "已在另一台设备登录 · Logged in on another device";
  }
  if (error.reason === "revoked") {
    return "已被服务端踢下线 · The session was ended";
  }
  if (error.reason === "blocked") {
    return PROBLEMS.user_blocked;
  }
  const unknown = "登录服务暂时不可用 · The login service is not available";
  return error.code in PROBLEMS ? PROBLEMS[error.code] : unknown;
}

Page({
  data: {
    /** "working", "in", "out" */
    state: "working",
    session: {},
    problem: "",
  },

  onShow() {
    this.showLogin(getApp().loginReady);
  },

  onLoginTap() {
    this.showLogin(getApp().login());
  },

  onCheckTap() {
    this.showLogin(Promise.resolve());
  },

  onLogoutTap() {
    this.setData({ state: "working", problem: "" });
    getApp()
      .logout()
      .then(({ ended }) => {
        this.setData({
          state: "out",
          problem: ended
            ? ""
            : "手机已退出，但服务器没有收到 · Logged out here; the server could not be told",
        });
      });
  },

  /** Shows the session once `login` is done, or what went wrong. Either way the page goes on: what
   * needs no login still works. */
  showLogin(login) {
    this.setData({ state: "working", problem: "" });
    login
      .then(() => common.request({ url: "/v1/session" }))
      .then(
        ({ data }) => {
          this.setData({
            state: "in",
            session: {
              appid: data.appid,
              createdAt: new Date(data.created_at * 1000).toLocaleString(),
              expiresAt: new Date(Date.now() + data.expires_in * 1000).toLocaleString(),
            },
          });
        },
        (error) => {
          this.setData({ state: "out", problem: problemText(error) });
        }
      );
  },
});
