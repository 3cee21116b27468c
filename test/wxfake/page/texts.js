/** What people read, in two languages; and which of them is on. */

const TEXTS = {
  "page.title": ["wxlogind 模拟器", "wxlogind simulator"],
  tagline: [
    "微信小程序登录的每一步：点一点，看每个请求如何往来",
    "Every step of a mini program's login: press a button and watch the requests",
  ],

  "phone.label": ["手机", "Phone"],
  "phone.back": ["返回", "Back"],
  "phone.caption": [
    "common.js 和示例小程序一字未改，wx 由浏览器扮演",
    "The unchanged common.js and sample mini program; the browser plays wx",
  ],

  "controls.label": ["操作", "Controls"],
  "controls.do": ["在手机上", "On the phone"],
  "controls.happen": ["模拟异常", "Simulate a fault"],
  "do.login": ["登录", "Log in"],
  "do.call": ["携带登录态请求接口", "Call with the session"],
  "do.backend": ["请求你的后端", "Call your backend"],
  "do.restart": ["重启小程序", "Restart the mini program"],
  "happen.withdraw": ["用户撤回手机号", "The user withdraws the phone number"],
  "happen.expire": ["让 session_key 过期", "Expire the session_key"],
  "happen.end": ["服务端踢下线", "End the session on the server"],
  "happen.other": ["在另一台手机登录", "Log in on another phone"],
  "happen.lose": ["丢弃下一个响应", "Drop the next response"],
  "happen.stop": ["停用微信服务器", "Stop WeChat"],
  "happen.resume": ["恢复微信服务器", "Resume WeChat"],

  "happen.kill": ["Redis 主节点宕机", "The Redis master dies"],

  "hint.start": [
    "点任意一个按钮。图上的每一行都是真实请求。",
    "Press any button. Every line of the diagram is a real request.",
  ],
  "hint.login": [
    "手机只拿到 third_session。openid 和 session_key 从未离开服务器。",
    "The phone gets only a third_session. openid and session_key never leave the servers.",
  ],
  "hint.login_failed": [
    "登录失败。小程序照常可用，可以再次登录。",
    "The login failed. The mini program still works, and offers to log in again.",
  ],
  "hint.call": [
    "请求携带登录态，wxlogind 自己就能校验，不必再请求微信。",
    "The request carries the session. wxlogind checks it without asking WeChat.",
  ],
  "hint.call_relogin": [
    "旧的登录态已失效：common.js 自动重新登录一次，并重发请求。",
    "The old session was no longer valid: common.js logged in again and repeated the request.",
  ],
  "hint.backend": [
    "代理先问 wxlogind 是谁在调用，再把 X-Wx-Openid 交给后端。后端不接触 code，也不接触 session_key。",
    "The proxy asks wxlogind who is calling, then passes X-Wx-Openid to the backend. The " +
      "backend never sees a code or a session_key.",
  ],
  "hint.call_failed": ["请求失败，手机上说明了原因。", "The request failed. The phone says why."],
  "hint.restart": [
    "已有登录态，wx.checkSession 也成功：不需要登录。",
    "There is a session and wx.checkSession succeeds: no login is needed.",
  ],
  "hint.restart_login": [
    "没有登录态，或 wx.checkSession 失败：登录一次。",
    "There is no session, or wx.checkSession failed: log in once.",
  ],
  "hint.withdraw": [
    "微信推送：用户撤回了手机号授权。wxlogind 已清除手机号，并会转给你的后端。",
    "WeChat pushed a message: the user withdrew the phone number. wxlogind has cleared it, and " +
      "would forward the message to your backend.",
  ],
  "hint.withdraw_refused": [
    "wxlogind 没有接受推送：请按 docs/push.md 设置 push_token 和 push_aes_key。",
    "wxlogind did not accept the message: set push_token and push_aes_key, see docs/push.md.",
  ],
  "hint.expire": [
    "微信那边的 session_key 失效了。点“重启小程序”，看 wx.checkSession 如何发现。",
    "WeChat's session_key has expired. Press “Restart the mini program” to see how " +
      "wx.checkSession notices.",
  ],
  "hint.end": [
    "登录态已被服务端吊销，手机还不知道。点“携带登录态请求接口”，看 common.js 如何自动恢复。",
    "The server has revoked the session; the phone does not know yet. Press “Call with the " +
      "session” to see how common.js recovers.",
  ],
  "hint.other": [
    "同一用户在另一台手机登录了。点“携带登录态请求接口”：如果只允许一台设备，本机会收到提示，而不会抢回登录。",
    "The same user logged in on another phone. Press “Call with the session”: with one device " +
      "per user, this phone is told, and does not take the login back.",
  ],
  "hint.lose": [
    "下一个响应会在到达手机之前丢失。点“登录”：重试时使用同一个 code 和 nonce，得到同一个登录态。",
    "The next response will be lost on its way to the phone. Press “Log in”: the retry uses the " +
      "same code and nonce, and gets the same session.",
  ],
  "hint.unlose": ["不再丢弃响应。", "No response will be dropped."],
  "hint.stop": [
    "微信服务器不再响应。点“登录”会得到 503 并自动重试；“携带登录态请求接口”不受影响。",
    "WeChat does not answer. “Log in” gets 503 and retries; “Call with the session” still works.",
  ],
  "hint.resume": ["微信恢复了。点“登录”。", "WeChat is back. Press “Log in”."],
  "hint.kill": [
    "Redis 主节点已宕机，正在选举新的主节点。手机不断请求接口：wxlogind 返回 503，common.js 自动重试。",
    "The Redis master is dead, and another is being elected. The phone goes on calling: " +
      "wxlogind answers 503, and common.js retries.",
  ],
  "hint.killed": [
    "{dead} 宕机 {seconds} 秒后，{master} 已是主节点，请求恢复正常（503：{n} 次）。登录态没有丢失。" +
      "{dead} 稍后会作为从节点回来。点“登录”再看看。",
    "{dead} died. {seconds} s later {master} was master, and calls succeeded again " +
      "(503 answers: {n}). The session was not lost. {dead} will be back as a replica. " +
      "Press “Log in” to see more.",
  ],
  "hint.killed_login": [
    "{dead} 宕机 {seconds} 秒后，{master} 已是主节点，请求恢复正常（503：{n} 次）。" +
      "最后一次登录还没来得及复制，所以 common.js 重新登录了一次。",
    "{dead} died. {seconds} s later {master} was master, and calls succeeded again " +
      "(503 answers: {n}). The last login had not reached a replica, so common.js logged in again.",
  ],
  "hint.kill_waits": [
    "现在没有主节点，选举还在进行。请看图上方的服务器状态，几秒后再试。",
    "There is no master now: the election goes on. Look at the servers above the diagram, and " +
      "try again in some seconds.",
  ],
  "hint.kill_late": [
    "一分钟内没有恢复。请看 Redis 容器的日志。",
    "Calls did not succeed again within a minute. Look at the log of the Redis container.",
  ],
  "hint.none": ["还没有登录态：请先登录。", "There is no session yet: log in first."],
  "hint.profile": [
    "昵称、头像和手机号由用户自己决定给不给；不给，小程序照常运行。",
    "The user decides whether to give name, picture and number. The mini program works without " +
      "them.",
  ],

  "traffic.label": ["请求时序图", "Request sequence"],
  "traffic.title": ["请求时序", "Request sequence"],
  "traffic.clear": ["清空", "Clear"],
  "traffic.empty": ["还没有请求。", "No requests yet."],
  "traffic.legend": [
    "小程序一列来自浏览器里的 wx；微信、后端和 Redis 来自 wxfake 看到的真实请求；用户库来自 wxlogind 的计数，所以它在一步之内的先后是近似的。密钥、令牌和 " +
      "code 只显示开头或长度。Redis 的响应、心跳和浏览器的 CORS 预检没有画出。",
    "The mini program's requests come from the wx in this browser. Requests to WeChat, the " +
      "backend and Redis are real ones that wxfake saw. Calls to the user database come from " +
      "wxlogind's counters, so their order within a step is approximate. Keys, tokens and codes " +
      "show only their beginning or length. Redis' responses, heartbeats and the browser's CORS " +
      "preflights are not shown.",
  ],
  "traffic.no_redis": [
    " 未监视 Redis：启动 wxfake 时加 --watch-redis。",
    " Redis is not monitored: start wxfake with --watch-redis.",
  ],
  "live.on": ["实时", "live"],
  "live.off": ["重新连接中", "reconnecting"],

  "servers.label": ["Redis 服务器", "Redis servers"],
  "server.master": ["{name} 主节点", "{name} master"],
  "server.replica": ["{name} 从节点", "{name} replica"],
  "server.away": ["{name} 宕机", "{name} down"],

  "lane.phone": ["小程序", "Mini program"],
  "lane.backend": ["代理和后端", "Proxy, backend"],
  "lane.users": ["用户库 SQL", "Users (SQL)"],
  "lane.wechat": ["微信", "WeChat"],

  "step.1": ["1 code", "1 code"],
  "step.2": ["2 openid", "2 openid"],
  "step.3": ["3 存登录态", "3 session"],
  "step.4": ["4 third_session", "4 third_session"],
  "step.5": ["5 是谁在调用", "5 who is calling"],
  "fold.more": ["另有 {n} 条", "{n} more"],
  "fold.less": ["收起 {n} 条", "fold {n}"],

  "act.launch": ["小程序启动", "The mini program starts"],
  "act.login": ["登录", "Log in"],
  "act.backend": ["请求你的后端", "Call your backend"],
  "act.call": ["携带登录态请求接口", "Call with the session"],
  "act.logout": ["退出", "Log out"],
  "act.withdraw": ["撤回手机号授权", "The phone number is withdrawn"],
  "act.expire": ["session_key 过期", "The session_key expires"],
  "act.end": ["服务端踢下线", "The session is ended on the server"],
  "act.other": ["在另一台手机登录", "Login on another phone"],
  "act.lose": ["将丢弃下一个响应", "The next response will be dropped"],
  "act.unlose": ["不再丢弃响应", "No response will be dropped"],
  "act.stop": ["微信服务器停用", "WeChat stops"],
  "act.resume": ["微信服务器恢复", "WeChat resumes"],
  "act.kill": ["Redis 主节点宕机", "The Redis master dies"],
  "act.elected": ["{name} 成为 Redis 主节点", "{name} is Redis master now"],
  "act.back": ["{name} 作为从节点回来了", "{name} is back as a replica"],
  "act.profile": ["资料页", "The profile page"],
  "act.avatar": ["选择头像", "Choose a picture"],
  "act.name": ["保存昵称", "Save the name"],
  "act.close": ["注销账号", "Close the account"],
  "act.phone": ["授权手机号", "Give the phone number"],
  "act.page": ["小程序页面", "A page of the mini program"],

  "note.elsewhere": ["另一台手机", "another phone"],
  "note.code": ["一次性登录凭证，五分钟内有效", "valid once, for five minutes"],
  "note.alive": ["session_key 有效", "the session_key is valid"],
  "note.dead": ["session_key 已失效", "the session_key has expired"],
  "note.no_network": ["没有响应", "no answer from the network"],
  "note.lost": ["响应在途中丢失", "the response was lost"],
  "note.wechat_lost": ["没有响应", "no answer"],
  "note.secrets": ["只有服务器知道", "only servers know it"],
  "note.openid": ["只有后端知道", "only the backend knows it"],
  "note.users_seen": ["记下这次登录", "records the login"],
  "note.users_get": ["读用户资料", "reads the profile"],
  "note.users_put": ["写用户资料", "writes the profile"],
  "note.used": ["code 已被用过", "the code was used before"],
  "note.redis_c": ["这个 code：谁先来，响应过什么", "this code: who was first, and the answer"],
  "note.redis_s": ["登录态", "the session"],
  "note.redis_u": [
    "此用户的登录态和加密的 session_key",
    "the user's sessions, and the encrypted session_key",
  ],
  "note.redis_t": ["加密的 access_token", "the encrypted access_token"],
  "note.within": ["{n} 条脚本内命令", "{n} commands within the script"],

  "sheet.cancel": ["取消", "Cancel"],
  "sheet.avatar": ["选择头像", "Choose a picture"],
  "sheet.phone": ["“示例小程序” 申请获取你的手机号", "The sample asks for your phone number"],
  "sheet.allow": ["允许", "Allow"],
  "sheet.decline": ["不允许", "Decline"],
  "sheet.privacy": [
    "使用前请阅读并同意《小程序用户隐私保护指引》",
    "Please read and agree to the privacy notice first",
  ],
  "sheet.contract": [
    "这里是隐私指引的全文。模拟器不收集任何信息：头像只留在本页，手机号由 wxfake 编造。",
    "The privacy notice would be here. The simulator collects nothing: the picture stays on " +
      "this page, and wxfake makes up the number.",
  ],
  "sheet.agree": ["同意", "Agree"],
  "sheet.no": ["取消", "No"],
  "sheet.yes": ["确定", "Yes"],
  "sheet.close": ["知道了", "Close"],

  "trouble.wxlogind": [
    "{server} 没有响应此页面。wxlogind 在运行吗？它的 cors_origins 里有 {origin} 吗？（wxfake 用 --wxlogind URL 指定它在哪里）",
    "{server} does not answer this page. Is wxlogind running, and is {origin} in its " +
      "cors_origins? (Tell wxfake with --wxlogind URL where it is.)",
  ],
  "trouble.start": ["页面启动失败：{error}", "The page could not start: {error}"],
};

let index = 0;

export function language() {
  return index ? "en" : "zh";
}

export function setLanguage(lang) {
  index = lang === "en" ? 1 : 0;
}

export function has(key) {
  return key in TEXTS;
}

export function text(key, values = {}) {
  if (!(key in TEXTS)) {
    throw new Error(`no text ${key}`);
  }
  return TEXTS[key][index].replace(/{(\w+)}/g, (_, name) => values[name]);
}

/** The sample says everything twice, "中文 · English": the half that is wanted. */
export function half(both) {
  const parts = /^([^]*?\p{Script=Han}[^]*?) · ([^]+)$/u.exec(both);
  return parts ? parts[1 + index] : both;
}
