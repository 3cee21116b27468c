/* Enter with the token, leave, and the language. Nothing is stored: a reload asks again. */
import { call, carry } from "./call.js";
import * as live from "./live.js";
import * as people from "./people.js";
import { text, translate } from "./texts.js";

const $ = (id) => document.getElementById(id);

function speak(language) {
  translate(language);
  live.redraw();
  people.redraw();
}

function show(inside) {
  $("enter").hidden = inside;
  $("inside").hidden = !inside;
  $("leave").hidden = !inside;
}

function leave(why = "") {
  carry("", "", () => {});
  live.stop();
  people.forget();
  show(false);
  $("enter-trouble").textContent = why;
  $("token").focus();
}

async function enter(event) {
  event.preventDefault();
  const token = $("token").value.trim();
  $("enter-trouble").textContent = "";
  if (!/^[!-~]*$/.test(token)) {
    $("enter-trouble").textContent = text("error_unauthorized");
    return;
  }
  carry(token, $("actor").value.trim(), () => {});
  try {
    await call("GET", "/metrics");
  } catch (e) {
    carry("", "", () => {});
    $("enter-trouble").textContent = e.message;
    return;
  }
  carry(token, $("actor").value.trim(), (trouble) => leave(trouble.message));
  $("token").value = "";
  show(true);
  live.start();
  $("appid").focus();
}

people.start();
$("enter").addEventListener("submit", enter);
$("leave").addEventListener("click", () => leave());
addEventListener("pagehide", () => leave()); // nothing is left for a "back"
$("language").addEventListener("click", () =>
  speak(document.documentElement.lang === "en" ? "zh-CN" : "en"),
);
speak(navigator.language.startsWith("zh") ? "zh-CN" : "en");
$("token").focus();
document.documentElement.dataset.ready = "";
