/**
 * Uses of the ES module's types that must pass the compiler without any platform's typings, and
 * some that must not. It is compiled, never run.
 */
import common, {
  configure,
  request,
  type WxlogindError,
} from "../../miniprogram/common/common.mjs";

configure({ baseUrl: "https://login.example.com/wx", timeout: 5000 });
// @ts-expect-error an adapter has a function request
configure({ baseUrl: "https://login.example.com", adapter: { login() {} } });
configure({
  baseUrl: "https://login.example.com",
  adapter: {
    login: async () => ({ code: "c" }),
    request: (options: { url: string }) => Promise.resolve({ statusCode: 200, url: options.url }),
    getStorage: () => Promise.reject(),
    setStorage: () => Promise.resolve(),
    removeStorage: () => Promise.resolve(),
  },
});

interface Orders {
  orders: string[];
}

export async function everything(e: { detail: { code?: string; encryptedData?: string } }) {
  const call = request<Orders>({
    url: "/orders",
    method: "POST",
    data: { page: 1 },
    header: { "X-A": "1" },
  });
  call.abort();
  const orders: string[] = (await call).data.orders;
  const any: number = (await common.request({ url: "/x" })).data.whatever;
  const upload = common.uploadFile({
    url: "/avatar",
    filePath: "wxfile://x",
    name: "avatar",
    formData: { a: 1 },
  });
  upload.onProgressUpdate(() => undefined);
  const body: string = (await upload).data;
  const file: string = (await common.downloadFile({ url: "/file" })).tempFilePath;
  const socket = await common.connectSocket({
    url: "wss://login.example.com/ws",
    protocols: ["chat"],
  });
  socket.onMessage(({ data }) => data);
  socket.close({});
  const session: string = await common.getSession();
  const header: { Authorization: string } = await common.authHeader();
  const opened: string = (
    await common.openData<{ nickName: string }>({ encryptedData: "x", iv: "y" })
  ).data.nickName;
  const number: string = (await common.getPhoneNumber(e)).purePhoneNumber;
  const closed: boolean = (await common.closeAccount()).closed;
  const task = common.request({ url: "/x", fail: (error: WxlogindError) => error.code });
  task.abort();
  // @ts-expect-error with callbacks there is no Promise
  task.then();
  // @ts-expect-error half of a pair
  common.openData({ encryptedData: "x" });
  // @ts-expect-error a file is needed
  common.uploadFile({ url: "/avatar" });
  // @ts-expect-error the session follows no redirect
  request({ url: "/x", redirect: "follow" });
  return [orders, any, body, file, session, header, opened, number, closed];
}
