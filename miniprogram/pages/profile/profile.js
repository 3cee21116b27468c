const common = require("../../common/common.js");

/** What WeChat gives instead of a name since November 2022: nobody's name. */
const ANONYMOUS = "微信用户";

const OPTIONAL = "可以不提供 · Optional";

const KEEPS_NONE = "服务器没有保存资料 · The server keeps no profile";

const NO_PRIVACY = "未同意隐私指引，仍可继续使用 · Privacy notice not accepted: you can go on without";

Page({
  data: {
    /** The user has not yet agreed to the privacy notice, and WeChat wants to be asked first. */
    privacyNeeded: false,
    contractName: "",
    nickName: "",
    avatarUrl: "",
    phoneNumber: "",
    /** Whether reading the profile again may help. */
    retry: false,
    notes: { privacy: "", profile: "", avatar: OPTIONAL, nickname: OPTIONAL, phone: OPTIONAL },
  },

  onLoad() {
    this.askPrivacy();
    this.loadProfile(getApp().loginReady);
  },

  note(about, text) {
    this.setData({ [`notes.${about}`]: text });
  },

  /* ---- the privacy notice ---- */

  askPrivacy() {
    if (!wx.getPrivacySetting) {
      return; // a base library before 2.32.3: WeChat does not ask
    }
    wx.getPrivacySetting({
      success: ({ needAuthorization, privacyContractName }) => {
        this.setData({ privacyNeeded: needAuthorization, contractName: privacyContractName });
      },
      fail: () => {}, // then WeChat asks by itself, when a button needs it
    });
  },

  onContractTap() {
    wx.openPrivacyContract({ fail: () => this.note("privacy", "隐私指引无法打开 · The notice cannot be opened") });
  },

  onPrivacyAgree() {
    this.setData({ privacyNeeded: false });
    this.note("privacy", "");
  },

  onPrivacyDecline() {
    this.note("privacy", NO_PRIVACY);
  },

  /** A button that needs the user's agreement came back without it. */
  privacyDeclined({ errno, errMsg }) {
    const declined = errno === 104 || /privacy/.test(errMsg || "");
    if (declined) {
      this.setData({ privacyNeeded: true });
      this.note("privacy", NO_PRIVACY);
    }
    return declined;
  },

  /* ---- what the server keeps ---- */

  onLoadTap() {
    this.loadProfile(getApp().login());
  },

  /** Shows what the server keeps once `login` is done. Without a login the page goes on, with its fields empty. */
  loadProfile(login) {
    this.note("profile", "");
    login
      .then(() => common.getUserInfo())
      .then(({ nickName, avatarUrl }) => {
        this.setData({ nickName: nickName || "", avatarUrl: avatarUrl || "" });
      })
      .catch((error) => {
        const none = error.statusCode === 404;
        this.setData({ retry: !none });
        this.note("profile", none ? KEEPS_NONE : "资料暂时读不到 · The profile cannot be read just now");
      });
  },

  /* ---- avatar ---- */

  onChooseAvatar({ detail }) {
    if (!detail.avatarUrl) {
      if (!this.privacyDeclined(detail)) {
        this.note("avatar", "没有选择头像，可以随时再选 · No picture chosen: you can choose one at any time");
      }
      return;
    }
    // A temporary file on this phone, and wxlogind keeps addresses, not pictures. Upload it to your own store with wx.uploadFile, then
    // common.setUserInfo({ avatarUrl: <the https address it got> }).
    this.setData({ avatarUrl: detail.avatarUrl });
    this.note("avatar", "头像只在本机 · The picture is on this phone only");
  },

  /* ---- nickname: read on submit, because WeChat may clear a name that it refuses after the field has lost focus ---- */

  onNicknameSubmit({ detail }) {
    const nickName = detail.value.nickname.trim();
    if (!nickName || nickName === ANONYMOUS) {
      this.note("nickname", "没有昵称，可以随时再填 · No name given: you can enter one at any time");
      return;
    }
    common.setUserInfo({ nickName }).then(
      (profile) => {
        this.setData({ nickName: profile.nickName || "" });
        this.note("nickname", "已保存 · Saved");
      },
      (error) => this.note("nickname", error.statusCode === 404 ? KEEPS_NONE : "没有保存成功，请再试 · Not saved: try again")
    );
  },

  /* ---- phone ---- */

  onPhone(e) {
    common.getPhoneNumber(e).then(
      ({ phoneNumber }) => {
        this.setData({ phoneNumber });
        this.note("phone", "");
      },
      (error) => {
        if (error.statusCode === 404) {
          this.note("phone", "服务器不提供手机号 · The server does not give numbers");
        } else if (error.code !== "wx_phone") {
          this.note("phone", "手机号没有取到，请再试 · The number did not come: try again");
        } else if (!this.privacyDeclined(e.detail)) {
          this.note("phone", "没有提供手机号，可以随时再授权 · No number given: you can give it at any time");
        }
      }
    );
  },
});
