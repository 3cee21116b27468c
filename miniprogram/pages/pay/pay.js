const common = require("../../common/common.js");

const COINS = 60;

/** What wx.requestVirtualPayment says when the user closes it. */
const CANCELLED = -2;

/** The phone's half of virtual payment. The backend makes the order and both signatures: it has the
 * AppKey, and wxlogind signs with the session_key (docs/examples/virtual-payment). */
Page({
  data: {
    /** "idle", "working", "paid" */
    state: "idle",
    problem: "",
  },

  onPayTap() {
    const { payBackend } = getApp();
    if (!payBackend || !wx.requestVirtualPayment) {
      const problem = "此处不能支付 · Payment is not set up here";
      this.setData({ problem });
      return;
    }
    this.setData({ state: "working", problem: "" });
    common
      .request({ url: `${payBackend}/order`, method: "POST", data: { coins: COINS } })
      .then(({ data }) => this.pay(data))
      .then(
        // Whether it was paid, the backend knows from WeChat. This only tells the user.
        () => this.setData({ state: "paid" }),
        (error) => this.setData({ state: "idle", problem: this.problemText(error) })
      );
  },

  /** The order goes to WeChat as it came: the signatures are of its bytes. */
  pay({ mode, signData, paySig, signature }) {
    return new Promise((resolve, reject) => {
      wx.requestVirtualPayment({
        mode,
        signData,
        paySig,
        signature,
        success: resolve,
        fail: reject,
      });
    });
  },

  problemText(error) {
    return error.errCode === CANCELLED
      ? "已取消 · Cancelled"
      : "支付没有成功 · The payment did not succeed";
  },
});
