/** Phones whose calls meet the answers that a test names. */
"use strict";
const { Phone } = require("./phone.js");

const OLD = "A".repeat(43); // a session that the server never gave, or gave long ago
const ok = (data = {}) => ({ statusCode: 200, header: {}, data });
const isLogin = (options) => options.url.endsWith("/v1/login");

/** Answers that come one after the other; the last stays. */
const inTurn =
  (...answers) =>
  () =>
    answers.length > 1 ? answers.shift() : answers[0];

/** What makes phones for the stack that `stack` gives. */
function phones(stack) {
  const newPhone = (more) => new Phone({ fake: stack().fake, baseUrl: stack().url, ...more });

  /** A phone that has a session, and whose calls, logins excepted, get what `answer` says. */
  function phoneThatMeets(answer, more) {
    const phone = newPhone(more);
    phone.session = OLD;
    phone.transport = (options, send) => (isLogin(options) ? send(options) : answer(options, send));
    return phone;
  }

  return { newPhone, phoneThatMeets };
}

module.exports = { OLD, inTurn, ok, phones };
