/** Types of common.js. They need no other package: `miniprogram-api-typings`, `@dcloudio/types` and
 * `@tarojs/taro` fit beside them. Made from common.d.ts by
 * `npm run build`. */

export interface Configuration {
  /** Where wxlogind's public side is, as `https://login.example.com`. It may have a path. */
  baseUrl: string;
  /** Other servers that may get the session, as `https://api.example.com`. */
  origins?: string[];
  /** Needed where the server serves several mini programs and sees no Referer. */
  appid?: string;
  /** Where the platform's storage keeps the session; `third_Session` when left out. */
  storageKey?: string;
  /** Of one call, in milliseconds; 10000 when left out. */
  timeout?: number;
  /** How many times a call that may be repeated is repeated; 2 when left out. */
  retries?: number;
  /** The platform. Found by itself where `wx`, `uni` or `Taro` is a global. */
  adapter?: Adapter;
}

/**
 * A platform's functions. Each takes one object with its options, and answers by the `success` and
 * `fail` in it or by a Promise: of the result, or of `[error, result]` as in uni-app's Vue 2.
 */
export interface Adapter {
  login(options: any): any;
  request(options: any): any;
  getStorage(options: any): any;
  setStorage(options: any): any;
  removeStorage(options: any): any;
  checkSession?(options?: any): any;
  uploadFile?(options: any): any;
  downloadFile?(options: any): any;
  connectSocket?(options: any): any;
}

/** What every function rejects with, or hands to `fail`. */
export interface WxlogindError extends Error {
  /**
   * The server's `error`, as `invalid_code` or `wechat_unavailable`; or
   * `network` (no answer), `timeout` (the platform did not call back in time),
   * `wx_login` (no code from the platform), `wx_phone` (no phone number: declined, or not to be
   * had), `storage` (the phone could not store the session: it is used until the mini program
   * ends), `logged_out` (after logout, until userLogin or onLogin), `aborted`, `origin` (the
   * session does not go to that url), `invalid_argument`, `http_error` (an answer of another
   * shape), `not_configured`.
   */
  code: string;
  /** Of the answer; absent where there was none. */
  statusCode?: number;
  /** Why a session does not live. */
  reason?:
    | "missing" | "malformed" | "unknown" | "expired"
    | "logged_out" | "revoked" | "replaced" | "blocked"
    | (string & {});
  requestId?: string;
  /** What the server's Retry-After asks for. */
  retryAfterMs?: number;
  /** The platform's number for its failure, where it gave one. */
  errno?: number;
  /** The answer's body. */
  data?: any;
}

export interface Callbacks<Result> {
  success?(result: Result): void;
  fail?(error: WxlogindError): void;
  complete?(resultOrError: Result | WxlogindError): void;
}

/** With at least one of the three a function returns no Promise; with none of them it does. */
export type SomeCallbacks<Result> = Callbacks<Result> &
  (
    | Required<Pick<Callbacks<Result>, "success">>
    | Required<Pick<Callbacks<Result>, "fail">>
    | Required<Pick<Callbacks<Result>, "complete">>
  );

export type NoCallbacks = { success?: undefined; fail?: undefined; complete?: undefined };

/** What can be done to a call that runs. */
export interface Task {
  /** The call rejects with `aborted`, and is not repeated. */
  abort(): void;
  /** Of an upload or a download. */
  onProgressUpdate(listener: (progress: any) => void): void;
}

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
  /** An https address. A temporary file on the phone is refused: upload it first. */
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

/** The event of a button with open-type `getPhoneNumber` or `getRealtimePhoneNumber`. */
export interface PhoneNumberEvent {
  detail: { code?: string; errMsg?: string; errno?: number };
}

export type Sealed =
  | { encryptedData: string; iv: string; rawData?: string; signature?: string }
  | { rawData: string; signature: string; encryptedData?: string; iv?: string };

type Headers = { [name: string]: any };

interface CallOptions {
  /** A path under baseUrl, or an address of an origin that may get the session. */
  url: string;
  header?: Headers;
  /** In milliseconds. */
  timeout?: number;
}

/** The platform's request options. `redirect` is always `manual`: the session follows none. */
export interface RequestOptions extends CallOptions {
  method?: "OPTIONS" | "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "TRACE" | "CONNECT";
  data?: any;
  dataType?: string;
  responseType?: string;
  enableHttp2?: boolean;
  enableQuic?: boolean;
  enableCache?: boolean;
  enableHttpDNS?: boolean;
  httpDNSServiceId?: string;
  enableChunked?: boolean;
  forceCellularNetwork?: boolean;
}

export interface UploadOptions extends CallOptions {
  filePath: string;
  /** The field's name in the form; `file` when left out. */
  name?: string;
  formData?: { [name: string]: any };
}

export interface DownloadOptions extends CallOptions {
  filePath?: string;
}

export interface SocketOptions extends CallOptions {
  protocols?: string[];
  tcpNoDelay?: boolean;
  perMessageDeflate?: boolean;
  forceCellularNetwork?: boolean;
}

export interface RequestResult<T = any> {
  data: T;
  statusCode: number;
  header: Headers;
  cookies?: string[];
  errMsg?: string;
}

export interface UploadResult {
  /** The answer's body. */
  data: string;
  statusCode: number;
  errMsg?: string;
}

export interface DownloadResult {
  tempFilePath: string;
  filePath?: string;
  statusCode: number;
  errMsg?: string;
}

/** The platform's SocketTask, open. */
export interface Socket {
  send(options: { data: string | ArrayBuffer; success?: any; fail?: any; complete?: any }): any;
  close(options: { code?: number; reason?: string; success?: any; fail?: any }): any;
  onMessage(listener: (message: { data: any }) => void): void;
  onClose(listener: (result: any) => void): void;
  onError(listener: (result: any) => void): void;
}

/** Once, in app.js, before anything else. Throws where an option is not one. */
export function configure(options: Configuration): void;

/** Logs in where it has to: no stored session, or wx.checkSession says that session_key died. */
export function userLogin(callbacks: SomeCallbacks<Login>): void;
export function userLogin(options?: NoCallbacks): Promise<Login>;

/** Logs in, whatever is stored. All callers share one login. */
export function onLogin(callbacks: SomeCallbacks<Login>): void;
export function onLogin(options?: NoCallbacks): Promise<Login>;

/** The platform's request with the session. Logs in first where there is none, and once more where
 * the server no longer knows it. */
export function request<T = any>(options: RequestOptions & SomeCallbacks<RequestResult<T>>): Task;
export function request<T = any>(
  options: RequestOptions & NoCallbacks,
): Promise<RequestResult<T>> & Task;

/** The platform's uploadFile with the session. */
export function uploadFile(options: UploadOptions & SomeCallbacks<UploadResult>): Task;
export function uploadFile(options: UploadOptions & NoCallbacks): Promise<UploadResult> & Task;

/** The platform's downloadFile with the session. */
export function downloadFile(options: DownloadOptions & SomeCallbacks<DownloadResult>): Task;
export function downloadFile(
  options: DownloadOptions & NoCallbacks,
): Promise<DownloadResult> & Task;

/** The platform's connectSocket with the session. Brings the socket when it is open; a refused
 * handshake rejects with `network`, because the platform does not tell the status. */
export function connectSocket<S = Socket>(options: SocketOptions & SomeCallbacks<S>): Task;
export function connectSocket<S = Socket>(options: SocketOptions & NoCallbacks): Promise<S> & Task;

/** The session, logging in where there is none. */
export function getSession(callbacks: SomeCallbacks<string>): void;
export function getSession(options?: NoCallbacks): Promise<string>;

/** The session as a header, for a request function of one's own. */
export function authHeader(callbacks: SomeCallbacks<{ Authorization: string }>): void;
export function authHeader(options?: NoCallbacks): Promise<{ Authorization: string }>;

/** The profile that the server keeps of this user. */
export function getUserInfo(callbacks: SomeCallbacks<UserInfo>): void;
export function getUserInfo(options?: NoCallbacks): Promise<UserInfo>;

/** A field left out stays as it was, `null` clears it. Brings the profile as it then stands. */
export function setUserInfo(userInfo: UserInfo & SomeCallbacks<UserInfo>): void;
export function setUserInfo(userInfo: UserInfo, callbacks: SomeCallbacks<UserInfo>): void;
export function setUserInfo(userInfo: UserInfo & NoCallbacks): Promise<UserInfo>;

/** Rejects with code `wx_phone` where the user declined. */
export function getPhoneNumber(e: PhoneNumberEvent, callbacks: SomeCallbacks<PhoneNumber>): void;
export function getPhoneNumber(e: PhoneNumberEvent): Promise<PhoneNumber>;

/** Has the server open or check what WeChat gave under the session_key. */
export function openData<T = any>(sealed: Sealed & SomeCallbacks<{ data: T }>): void;
export function openData<T = any>(sealed: Sealed, callbacks: SomeCallbacks<{ data: T }>): void;
export function openData<T = any>(sealed: Sealed & NoCallbacks): Promise<{ data: T }>;

/** Asks the server about the stored session. Does not log in; a session that the server refuses is
 * forgotten. */
export function checkLogin(callbacks: SomeCallbacks<Session>): void;
export function checkLogin(options?: NoCallbacks): Promise<Session>;

/** Forgets the session, then tells the server. Nobody is logged in again until userLogin or
 * onLogin. `ended` false: the server could not be told, so there the session ends with time. */
export function logout(callbacks: SomeCallbacks<{ ended: boolean }>): void;
export function logout(options?: NoCallbacks): Promise<{ ended: boolean }>;

/** The user closes the account: the server erases the user, and then this is as after logout. */
export function closeAccount(callbacks: SomeCallbacks<{ closed: boolean }>): void;
export function closeAccount(options?: NoCallbacks): Promise<{ closed: boolean }>;

declare const common: {
  configure: typeof configure;
  userLogin: typeof userLogin;
  onLogin: typeof onLogin;
  request: typeof request;
  uploadFile: typeof uploadFile;
  downloadFile: typeof downloadFile;
  connectSocket: typeof connectSocket;
  getSession: typeof getSession;
  authHeader: typeof authHeader;
  getUserInfo: typeof getUserInfo;
  setUserInfo: typeof setUserInfo;
  getPhoneNumber: typeof getPhoneNumber;
  openData: typeof openData;
  checkLogin: typeof checkLogin;
  logout: typeof logout;
  closeAccount: typeof closeAccount;
};

export default common;
