/**
 * Uses of common.d.ts that must pass the compiler, and some that must not. It is compiled, never
 * run.
 */
import common = require("../../miniprogram/common/common");

common.configure({ baseUrl: "https://login.example.com" });
common.configure({
  baseUrl: "https://login.example.com",
  origins: ["https://api.example.com"],
  appid: "wx",
  storageKey: "s",
  timeout: 1,
  retries: 0,
});
// @ts-expect-error baseUrl is missing
common.configure({});
// @ts-expect-error no such option
common.configure({ baseUrl: "https://login.example.com", retry: 1 });

async function promises(e: WechatMiniprogram.ButtonGetPhoneNumber) {
  const login: common.Login = await common.userLogin();
  const session: string = login.third_session;
  const seconds: number | undefined = (await common.onLogin()).expires_in;
  const created: number = (await common.checkLogin()).created_at;
  const ended: boolean = (await common.logout()).ended;
  const name: string | null | undefined = (
    await common.setUserInfo({ nickName: "Ming", avatarUrl: null })
  ).nickName;
  const gender: number | null | undefined = (await common.getUserInfo()).gender;
  const number: string = (await common.getPhoneNumber(e)).purePhoneNumber;
  const res = await common.request<{ orders: string[] }>({
    url: "/orders",
    method: "GET",
    data: { page: 1 },
    header: { "X-A": "1" },
    timeout: 5,
  });
  const status: number = res.statusCode;
  const orders: string[] = res.data.orders;
  return [session, seconds, created, ended, name, gender, number, status, orders];
}

function callbacks(e: WechatMiniprogram.ButtonGetPhoneNumber) {
  const nothing: void = common.userLogin({ success: (login) => login.third_session.length });
  common.request({
    url: "/x",
    success: (res) => res.header,
    fail: (error) => error.code + error.statusCode + error.reason + error.requestId,
  });
  common.setUserInfo({ nickName: "Ming", success: (user) => user.nickName });
  common.setUserInfo({ nickName: "Ming" }, { complete: () => undefined });
  common.getPhoneNumber(e, { fail: (error) => error.message });
  common.logout({ complete() {} });
  // @ts-expect-error with a callback there is no Promise
  common.checkLogin({ success() {} }).then();
  return nothing;
}

// @ts-expect-error a url is needed
common.request({ method: "GET" });
// @ts-expect-error no such method
common.request({ url: "/x", method: "PATCH" });
// @ts-expect-error a name is a string
common.setUserInfo({ nickName: 1 });
// @ts-expect-error the session follows no redirect
common.request({ url: "/x", redirect: "follow" });

export { promises, callbacks };
