/// <reference types="miniprogram-api-typings" />

export interface Configuration {
  /** Where wxlogind's public side is, as `https://login.example.com`. */
  baseUrl: string;
  /** Other servers that may get the session, as `https://api.example.com`. */
  origins?: string[];
  /** Needed where the server serves several mini programs and sees no Referer. */
  appid?: string;
  /** Where wx.setStorage keeps the session; `third_Session` when left out. */
  storageKey?: string;
  /** Of one call, in milliseconds; 10000 when left out. */
  timeout?: number;
  /** How many times a call that may be repeated is repeated; 2 when left out. */
  retries?: number;
}

/** What every function rejects with, or hands to `fail`. */
export interface WxlogindError extends Error {
  /**
   * The server's `error`, as `invalid_code` or `wechat_unavailable`; or `network` (no answer), `wx_login` (WeChat gave no code),
   * `wx_phone` (no phone number: declined, or not to be had), `origin` (the session does not go to that url), `storage` (the phone
   * could not keep the session), `http_error` (an answer of another shape), `not_configured`.
   */
  code: string;
  /** Of the answer; absent where there was none. */
  statusCode?: number;
  /** Why a session does not live. */
  reason?: "missing" | "malformed" | "unknown" | "expired" | "logged_out" | "revoked" | "replaced" | (string & {});
  requestId?: string;
  /** What the server's Retry-After asks for. */
  retryAfterMs?: number;
  /** The answer's body. */
  data?: string | WechatMiniprogram.IAnyObject | ArrayBuffer;
}

export interface Callbacks<Result> {
  success?(result: Result): void;
  fail?(error: WxlogindError): void;
  complete?(resultOrError: Result | WxlogindError): void;
}

/** With at least one of the three, a function returns nothing; with none of them, a Promise. */
export type SomeCallbacks<Result> = Callbacks<Result> &
  (
    | Required<Pick<Callbacks<Result>, "success">>
    | Required<Pick<Callbacks<Result>, "fail">>
    | Required<Pick<Callbacks<Result>, "complete">>
  );

type NoCallbacks = { success?: undefined; fail?: undefined; complete?: undefined };

/** A secret: not for logs, and not for other servers. */
export interface Login {
  third_session: string;
  /** In seconds; unknown where a stored session was found. */
  expires_in?: number;
  /** Unknown where a stored session was found, or the user database did not say. */
  new_user?: boolean;
}

export interface Session {
  appid: string;
  /** In seconds. */
  expires_in: number;
  /** In seconds since 1970. */
  created_at: number;
}

/** As WeChat's userInfo names them. */
export interface UserInfo {
  nickName?: string | null;
  avatarUrl?: string | null;
  gender?: number | null;
  province?: string | null;
  city?: string | null;
  country?: string | null;
  language?: string | null;
}

export interface PhoneNumber {
  phoneNumber: string;
  purePhoneNumber: string;
  countryCode: string;
}

/** The event of `<button open-type="getPhoneNumber">`. */
export interface PhoneNumberEvent {
  detail: { code?: string; errMsg?: string; errno?: number };
}

type Body = string | WechatMiniprogram.IAnyObject | ArrayBuffer;

/** wx.request's options; `url` may be a path under baseUrl. `redirect` is always `manual`: the session follows none. */
export type RequestOptions = Omit<WechatMiniprogram.RequestOption, "success" | "fail" | "complete" | "redirect">;

export type RequestResult<T extends Body = Body> = WechatMiniprogram.RequestSuccessCallbackResult<T>;

/** Once, in app.js, before anything else. Throws where an address is not one. */
export function configure(options: Configuration): void;

/** Logs in where it has to: no stored session, or wx.checkSession says that WeChat's session_key died. */
export function userLogin(callbacks: SomeCallbacks<Login>): void;
export function userLogin(options?: NoCallbacks): Promise<Login>;

/** Logs in, whatever is stored. All callers share one login. */
export function onLogin(callbacks: SomeCallbacks<Login>): void;
export function onLogin(options?: NoCallbacks): Promise<Login>;

/** wx.request with the session. Logs in first where there is none, and once more where the server no longer knows it. */
export function request<T extends Body = Body>(options: RequestOptions & SomeCallbacks<RequestResult<T>>): void;
export function request<T extends Body = Body>(options: RequestOptions & NoCallbacks): Promise<RequestResult<T>>;

/** The profile that the server keeps of this user. */
export function getUserInfo(callbacks: SomeCallbacks<UserInfo>): void;
export function getUserInfo(options?: NoCallbacks): Promise<UserInfo>;

/** A field left out stays as it was, `null` clears it. Resolves with the profile as it then stands. */
export function setUserInfo(userInfo: UserInfo & SomeCallbacks<UserInfo>): void;
export function setUserInfo(userInfo: UserInfo, callbacks: SomeCallbacks<UserInfo>): void;
export function setUserInfo(userInfo: UserInfo & NoCallbacks): Promise<UserInfo>;

/** Rejects with code `wx_phone` where the user declined. */
export function getPhoneNumber(e: PhoneNumberEvent, callbacks: SomeCallbacks<PhoneNumber>): void;
export function getPhoneNumber(e: PhoneNumberEvent): Promise<PhoneNumber>;

/** Asks the server about the stored session. Does not log in; a session that the server refuses is forgotten. */
export function checkLogin(callbacks: SomeCallbacks<Session>): void;
export function checkLogin(options?: NoCallbacks): Promise<Session>;

/** Forgets the session, then tells the server. `ended` false: it could not be told, so there the session ends only with time. */
export function logout(callbacks: SomeCallbacks<{ ended: boolean }>): void;
export function logout(options?: NoCallbacks): Promise<{ ended: boolean }>;
