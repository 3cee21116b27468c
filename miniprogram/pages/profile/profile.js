const common = require("../../common/common.js");

/** What WeChat gives instead of a name since November 2022: nobody's name. */
const ANONYMOUS = "微信用户";

const OPTIONAL = "可以不提供 · Optional";

const KEEPS_NONE = "服务器没有保存资料 · The server keeps no profile";

const NO_PRIVACY =
  "未同意隐私指引，仍可继续使用 · Privacy notice not accepted: you can go on without";

/** What WeChat says where the privacy notice is in the way. Within ten seconds of a refusal it asks
 * nobody again and fails at once: so the page says it and waits for the user. */
const PRIVACY = {
  103: NO_PRIVACY, // refused, in WeChat's dialog of an authorisation and the notice in one
  104: NO_PRIVACY, // refused
  112: "小程序未在隐私指引中声明此功能 · The owner has not declared this in the privacy notice",
};

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
    notes: {
      privacy: "",
      profile: "",
      avatar: OPTIONAL,
      nickname: OPTIONAL,
      phone: OPTIONAL,
      account: "",
    },
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
    wx.openPrivacyContract({
      fail: () => this.note("privacy", "隐私指引无法打开 · The notice cannot be opened"),
    });
  },

  onPrivacyAgree() {
    this.setData({ privacyNeeded: false });
    this.note("privacy", "");
  },

  onPrivacyDecline() {
    this.note("privacy", NO_PRIVACY);
  },

  /** Whether a button came back empty because of the privacy notice. Then the page says so. */
  privacyDeclined({ errno, errMsg }) {
    const text = PRIVACY[errno] || (/privacy/.test(errMsg || "") ? NO_PRIVACY : "");
    if (text) {
      this.setData({ privacyNeeded: text === NO_PRIVACY });
      this.note("privacy", text);
    }
    return Boolean(text);
  },

  /* ---- what the server keeps ---- */

  onLoadTap() {
    this.loadProfile(getApp().login());
  },

  /**
   * Shows what the server keeps once `login` is done. Without a login the page goes on, with its
   * fields empty.
   */
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
        this.note(
          "profile",
          none ? KEEPS_NONE : "资料暂时读不到 · The profile cannot be read just now"
        );
      });
  },

  /* ---- avatar ---- */

  onChooseAvatar({ detail }) {
    if (!detail.avatarUrl) {
      if (!this.privacyDeclined(detail)) {
        this.note(
          "avatar",
          "没有选择头像，可以随时再选 · No picture chosen: you can choose one at any time"
        );
      }
      return;
    }
    this.setData({ avatarUrl: detail.avatarUrl });
    this.keepAvatar(detail.avatarUrl);
  },

  /**
   * The picture is a temporary file on this phone, and wxlogind keeps addresses, not pictures. So a
   * server of one's own gets the file, and wxlogind its https address.
   */
  keepAvatar(filePath) {
    const url = getApp().avatarUpload;
    if (!url) {
      this.note("avatar", "头像只在本机 · The picture is on this phone only");
      return;
    }
    this.note("avatar", "正在上传… · Uploading…");
    common
      .uploadFile({ url, filePath, name: "avatar", timeout: 60000 })
      .then((res) => common.setUserInfo({ avatarUrl: JSON.parse(res.data).url }))
      .then(
        (profile) => {
          this.setData({ avatarUrl: profile.avatarUrl || "" });
          this.note("avatar", "已保存 · Saved");
        },
        () => this.note("avatar", "头像没有保存成功，请再选 · Not saved: choose it again")
      );
  },

  /* ---- nickname: read on submit, because WeChat may clear a name that it refuses after the field
   * has lost focus ---- */

  onNicknameSubmit({ detail }) {
    const nickName = detail.value.nickname.trim();
    if (!nickName || nickName === ANONYMOUS) {
      this.note(
        "nickname",
        "没有昵称，可以随时再填 · No name given: you can enter one at any time"
      );
      return;
    }
    common.setUserInfo({ nickName }).then(
      (profile) => {
        this.setData({ nickName: profile.nickName || "" });
        this.note("nickname", "已保存 · Saved");
      },
      (error) => {
        const problem = "没有保存成功，请再试 · Not saved: try again";
        this.note("nickname", error.statusCode === 404 ? KEEPS_NONE : problem);
      }
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
        } else if (error.errno === 1400001) {
          this.note("phone", "暂时无法获取手机号 · The owner's quota for numbers is used up");
        } else if (error.code !== "wx_phone") {
          this.note("phone", "手机号没有取到，请再试 · The number did not come: try again");
        } else if (!this.privacyDeclined(e.detail)) {
          const none =
            "没有提供手机号，可以随时再授权 · No number given: you can give it at any time";
          this.note("phone", none);
        }
      }
    );
  },

  /* ---- closing the account: WeChat's review asks that a user can ---- */

  onCloseTap() {
    wx.showModal({
      title: "注销账号 · Close the account",
      content:
        "资料、手机号和登录态都会删除，不能恢复。 · Profile, number and sessions are deleted for good.",
      success: ({ confirm }) => {
        if (confirm) {
          this.closeAccount();
        }
      },
    });
  },

  closeAccount() {
    getApp()
      .closeAccount()
      .then(
        () => {
          this.setData({ nickName: "", avatarUrl: "", phoneNumber: "" });
          this.note("account", "账号已注销 · The account is closed");
        },
        (error) => {
          const none = error.statusCode === 404;
          const problem = "没有注销成功，请再试 · Not closed: try again";
          this.note(
            "account",
            none ? "服务器不支持注销 · The server does not offer this" : problem
          );
        }
      );
  },
});
