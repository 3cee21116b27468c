/* Every word of the page: [English, 中文]. */
const TEXTS = {
  other_language: ["中文", "English"],
  enter_why: [
    "For those who run the service. The token is kept in memory only: it is gone when the page is.",
    "供运维人员使用。令牌只保存在内存中,关闭页面即消失。",
  ],
  token: ["Internal token (empty where none is set)", "内部令牌(未设置则留空)"],
  bad_name: ["That cannot be an appid or an openid.", "这不是有效的 appid 或 openid。"],
  actor: ["Your name for the audit log (optional, ASCII)", "审计日志中的操作人(可选,ASCII)"],
  enter: ["Enter", "进入"],
  leave: ["Leave", "退出"],
  live: ["Now", "实时"],
  requests: ["Requests", "请求"],
  logins: ["Logins", "登录"],
  errors: ["Answers of 500 and above", "5xx 响应"],
  http_p50: ["Half of the answers within", "响应时间 P50"],
  http_p99: ["99 % of the answers within", "响应时间 P99"],
  wechat_p99: ["99 % of WeChat's within", "微信响应 P99"],
  health: ["Health", "健康状况"],
  is_ready: ["Ready for traffic.", "可接收流量。"],
  not_ready: ["Not ready.", "未就绪。"],
  redis_up: ["Redis answers.", "Redis 正常。"],
  redis_away: ["Redis does not answer.", "Redis 无响应。"],
  users_up: ["The user database answers.", "用户数据库正常。"],
  users_away: ["The user database does not answer.", "用户数据库无响应。"],
  users_none: ["No user database has been asked.", "尚未访问用户数据库。"],
  host_up: ["answers.", "正常。"],
  host_away: ["away. It is skipped, and asked once a second.", "无响应,已跳过,每秒探测一次。"],
  token_ends: ["ends in", "剩余"],
  token_none: ["none now; it is fetched when a call needs it", "当前没有,有调用需要时获取"],
  token_fails: ["failed renewals:", "续期失败次数:"],
  went_well: ["went well", "成功"],
  failed: ["failed", "失败"],
  cache: ["Checks answered from memory", "内存命中率"],
  connections: ["Open connections", "当前连接数"],
  people: ["Users", "用户"],
  appid: ["appid", "appid"],
  by: ["Find by", "查找方式"],
  phone: ["phone number", "手机号"],
  value: ["Value", "内容"],
  every_user: ["all users", "全部用户"],
  blocked_users: ["blocked users", "已封禁的用户"],
  find: ["Find", "查找"],
  found: ["Found", "找到"],
  found_more: ["and more", "还有更多"],
  next_users: ["Next users", "下一页用户"],
  newest: ["the newest; there may be older ones", "仅最新的会话,可能还有更早的"],
  open: ["Open", "查看"],
  no_user: [
    "The user database does not know this user; sessions are shown.",
    "用户数据库中没有该用户;以下为其会话。",
  ],
  created_at: ["first login", "首次登录"],
  last_login_at: ["last login", "最近登录"],
  updated_at: ["last change", "最近修改"],
  blocked: ["blocked", "已封禁"],
  for_good: ["without an end", "永久"],
  export: ["Export", "导出"],
  block: ["Block", "封禁"],
  unblock: ["Unblock", "解除封禁"],
  erase: ["Erase", "删除"],
  sessions: ["Sessions", "会话"],
  reload: ["Look again", "刷新"],
  end: ["End", "结束"],
  end_all: ["End all", "全部结束"],
  more: ["Show 100 more", "再显示 100 条"],
  last_seen: ["last seen", "最近活动"],
  ended: ["Ended.", "已结束。"],
  is_blocked: [
    "Blocked: no session is left, and logins are refused.",
    "已封禁:会话已结束,登录会被拒绝。",
  ],
  is_unblocked: ["Unblocked.", "已解除封禁。"],
  is_erased: ["Erased.", "已删除。"],
  is_exported: ["Exported: the browser has the file.", "已导出,文件由浏览器保存。"],
  block_why: [
    "All sessions of this user end at once, and logins are refused.",
    "该用户的所有会话立即结束,登录会被拒绝。",
  ],
  note: ["Note", "备注"],
  until: ["until", "截止时间"],
  cancel: ["Cancel", "取消"],
  erase_why: [
    "Everything that is held about this user is deleted. This cannot be undone.",
    "将删除该用户的所有数据,且无法恢复。",
  ],
  erase_type: ["Type the openid to confirm", "输入 openid 以确认"],
  end_why: ["This user is logged out on every device.", "该用户将在所有设备上退出登录。"],
  error_network: ["The server does not answer.", "服务器无响应。"],
  error_unauthorized: ["The token is not right.", "令牌不正确。"],
  error_forbidden: [
    "Refused. Without a token, open the page by an IP address or localhost.",
    "被拒绝。未设置令牌时,请用 IP 地址或 localhost 打开本页。",
  ],
  error_unknown_app: ["No such app is configured.", "没有配置该 appid。"],
  error_404: [
    "Not found: there is no such thing, or this server does not have the call.",
    "未找到:对象不存在,或服务器没有此接口。",
  ],
  error_405: ["This server does not have the call.", "服务器没有此接口。"],
  error_store_unavailable: [
    "Redis or the user database does not answer. Try again soon.",
    "Redis 或用户数据库无响应,请稍后重试。",
  ],
  error_other: ["That did not work.", "操作失败。"],
};

let column = 0;

/** The words of this name; undefined where there are none. */
export const text = (name) => TEXTS[name]?.[column];

export function translate(language) {
  column = language === "en" ? 0 : 1;
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = text(node.dataset.text);
  }
  const other = document.getElementById("language");
  other.textContent = text("other_language");
  other.lang = column ? "en" : "zh-CN";
}
