/** What people read, in two languages; and which of them is on. */

const TEXTS = {
  "page.title": ["wxlogind 模拟器", "wxlogind simulator"],
  tagline: ["微信小程序登录的每一步：点一点，看看网络上走了什么", "Each step of a mini program's login: tap, and watch what travels"],

  "phone.label": ["手机", "Phone"],
  "phone.back": ["返回", "Back"],
  "phone.caption": [
    "common.js 和示例小程序一字未改，wx 由浏览器扮演",
    "The unchanged common.js and sample mini program, on a wx made of browser parts",
  ],

  "controls.label": ["操作", "Controls"],
  "controls.do": ["在手机上", "On the phone"],
  "controls.happen": ["让它出点状况", "Let something happen"],
  "do.login": ["登录", "Log in"],
  "do.call": ["带会话调用", "Call with the session"],
  "do.restart": ["重启小程序", "Restart the mini program"],
  "happen.expire": ["让 session_key 过期", "Expire the session_key"],
  "happen.end": ["在别处结束会话", "End the session elsewhere"],
  "happen.other": ["在另一台手机登录", "Log in on another phone"],
  "happen.lose": ["丢失下一个应答", "Lose the next answer"],
  "happen.stop": ["停掉微信服务器", "Stop WeChat"],
  "happen.resume": ["恢复微信服务器", "Resume WeChat"],

  "hint.start": ["点任意一个按钮。图上每一行都是真实流量，没有一行是编的。", "Press any button. Every line of the diagram is real traffic; none is made up."],
  "hint.login": [
    "手机只拿到 third_session。openid 和 session_key 从未离开服务器。",
    "The phone got a third_session and nothing else: openid and session_key never left the servers.",
  ],
  "hint.login_failed": ["没有登录成功。手机照常可用，并可再次登录。", "Not logged in. The phone goes on without, and offers it again."],
  "hint.call": ["会话随请求走，wxlogind 自己就能回答，不必再问微信。", "The session travels with the call; wxlogind answers it without asking WeChat."],
  "hint.call_relogin": [
    "服务器不再认识旧会话：common.js 重新登录一次，再发一次请求。",
    "The server no longer knew the session: common.js logged in once and sent the call again.",
  ],
  "hint.call_failed": ["调用失败，手机上说明了原因。", "The call failed, and the phone says why."],
  "hint.restart": ["有会话，wx.checkSession 也成功：不需要登录。", "A session is stored and wx.checkSession succeeds: no login is needed."],
  "hint.restart_login": ["没有会话，或 wx.checkSession 失败：登录一次。", "No session, or wx.checkSession failed: one login."],
  "hint.expire": [
    "微信那边的 session_key 失效了。点“重启小程序”，看 wx.checkSession 如何发现。",
    "WeChat's session_key is dead. Press “Restart the mini program” to see wx.checkSession notice.",
  ],
  "hint.end": [
    "手机还不知道会话已经结束。点“带会话调用”，看 common.js 如何自己恢复。",
    "The phone does not know yet that its session is over. Press “Call with the session” to see common.js recover.",
  ],
  "hint.other": [
    "同一用户在另一台手机登录了。点“带会话调用”：如果一人只许一台设备，本机会被告知，而不会抢回来。",
    "The same user logged in on another phone. Press “Call with the session”: with one device per user this phone is told, and does not throw the other out.",
  ],
  "hint.lose": [
    "下一个应答会在到达手机之前丢失。点“登录”：同一 code、同一 nonce，得到同一会话。",
    "The next answer will be lost before it reaches the phone. Press “Log in”: same code, same nonce, same session.",
  ],
  "hint.unlose": ["不丢了。", "Nothing will be lost."],
  "hint.stop": [
    "微信不应答了。点“登录”会得到 503，并会重试；“带会话调用”不受影响。",
    "WeChat does not answer. “Log in” meets 503 and tries again; “Call with the session” does not mind.",
  ],
  "hint.resume": ["微信恢复了。点“登录”。", "WeChat is back. Press “Log in”."],
  "hint.none": ["还没有会话：先登录。", "There is no session yet: log in first."],
  "hint.profile": ["昵称、头像和手机号由用户自己决定给不给；不给，小程序照常运行。", "Name, picture and number are the user's to give or not; the mini program goes on without."],

  "traffic.label": ["网络流量", "Traffic"],
  "traffic.title": ["网络上走了什么", "What travels"],
  "traffic.clear": ["清空", "Clear"],
  "traffic.empty": ["还没有流量。", "Nothing yet."],
  "traffic.legend": [
    "手机一列来自浏览器里的 wx；微信和 Redis 来自 wxfake 看到的真实调用。密钥、令牌和 code 只显示开头或长度。Redis 的应答、心跳和浏览器的 CORS 预检没有画出。",
    "The phone's calls come from the wx in this browser; WeChat's and Redis' are what wxfake really saw. Of keys, tokens and codes only the beginning or the length is shown. Redis' answers, heartbeats and the browser's CORS preflights are left out.",
  ],
  "traffic.no_redis": [" 未监视 Redis:启动 wxfake 时加 --watch-redis。", " Redis is not watched: start wxfake with --watch-redis."],
  "live.on": ["实时", "live"],
  "live.off": ["重新连接中", "reconnecting"],

  "lane.phone": ["小程序", "Mini program"],
  "lane.wechat": ["微信", "WeChat"],

  "act.launch": ["小程序启动", "The mini program starts"],
  "act.login": ["登录", "Log in"],
  "act.call": ["带会话调用", "Call with the session"],
  "act.logout": ["退出", "Log out"],
  "act.expire": ["session_key 过期", "The session_key expires"],
  "act.end": ["会话在别处被结束", "The session is ended elsewhere"],
  "act.other": ["在另一台手机登录", "Login on another phone"],
  "act.lose": ["下一个应答将会丢失", "The next answer will be lost"],
  "act.unlose": ["不再丢失应答", "No answer will be lost"],
  "act.stop": ["微信停了", "WeChat stops"],
  "act.resume": ["微信恢复", "WeChat resumes"],
  "act.profile": ["资料页", "The profile page"],
  "act.avatar": ["选择头像", "Choose a picture"],
  "act.name": ["保存昵称", "Save the name"],
  "act.phone": ["授权手机号", "Give the phone number"],
  "act.page": ["小程序页面", "A page of the mini program"],

  "note.elsewhere": ["另一台手机", "another phone"],
  "note.code": ["一次性登录凭证，五分钟内有效", "good once, for five minutes"],
  "note.alive": ["session_key 有效", "the session_key lives"],
  "note.dead": ["session_key 已失效", "the session_key is dead"],
  "note.no_network": ["没有网络应答", "no answer from the network"],
  "note.lost": ["应答在路上丢失", "answer lost on its way"],
  "note.wechat_lost": ["没有应答", "no answer"],
  "note.secrets": ["只给服务器", "for the server alone"],
  "note.used": ["code 已被用过", "the code was used before"],
  "note.redis_c": ["这个 code：谁先来，给过什么答复", "this code: who came first, what was answered"],
  "note.redis_s": ["会话", "the session"],
  "note.redis_u": ["此用户的会话和封存的 session_key", "the user's sessions, and the sealed session_key"],
  "note.redis_t": ["封存的 access_token", "the sealed access_token"],
  "note.within": ["{n} 条脚本内命令", "{n} commands within the script"],

  "sheet.cancel": ["取消", "Cancel"],
  "sheet.avatar": ["选择头像", "Choose a picture"],
  "sheet.phone": ["“示例小程序” 申请获取你的手机号", "The sample asks for your phone number"],
  "sheet.allow": ["允许", "Allow"],
  "sheet.decline": ["不允许", "Decline"],
  "sheet.privacy": ["使用前请阅读并同意《小程序用户隐私保护指引》", "Please read and agree to the privacy notice first"],
  "sheet.contract": [
    "这里是隐私指引的全文。模拟器不收集任何信息：头像只留在本页，手机号由 wxfake 编造。",
    "Here the privacy notice would stand. The simulator collects nothing: the picture stays on this page, the number is made up by wxfake.",
  ],
  "sheet.agree": ["同意", "Agree"],
  "sheet.close": ["知道了", "Close"],

  "trouble.wxlogind": [
    "{server} 没有应答此页面。wxlogind 在运行吗？它的 cors_origins 里有 {origin} 吗？（wxfake 用 --wxlogind URL 指定它在哪里）",
    "{server} does not answer this page. Is wxlogind up, and does its cors_origins name {origin}? (wxfake is told where it is by --wxlogind URL.)",
  ],
  "trouble.start": ["页面启动失败:{error}", "The page could not start: {error}"],
};

let index = 0;

export function language() {
  return index ? "en" : "zh";
}

export function setLanguage(lang) {
  index = lang === "en" ? 1 : 0;
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
