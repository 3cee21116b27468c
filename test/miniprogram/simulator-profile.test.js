/**
 * The profile page of the sample on wxfake's page: privacy notice, picture, name, phone number.
 */
"use strict";
const assert = require("node:assert/strict");
const { test } = require("node:test");
const {
  acts,
  open,
  phone,
  picture,
  press,
  settled,
  shows,
  sim,
  useSimulator,
} = require("./simulator.js");
const { APPID, poll } = require("./stack.js");

useSimulator();

test("the profile page: privacy declined and agreed to, picture, back and forth", async () => {
  await open();
  await sim.page.locator("#screen").getByText("Name, picture, phone").click();
  await sim.page.locator("#screen").getByText("Privacy", { exact: true }).waitFor();
  await sim.page.locator("#screen").getByRole("button", { name: "Choose a picture" }).click();
  await sim.page.locator("#sheet").getByRole("button", { name: "Decline" }).click();
  await phone("Privacy notice not accepted: you can go on without").waitFor();
  await sim.page.locator("#screen").getByRole("button", { name: "Agree" }).click();
  await poll(
    async () =>
      (await sim.page.locator("#screen").getByText("Privacy", { exact: true }).count()) === 0,
    "agreed",
  );
  await sim.page.locator("#screen").getByRole("button", { name: "Choose a picture" }).click();
  await sim.page.locator("#sheet").getByRole("button", { name: "Cancel" }).click();
  await phone("No picture chosen: you can choose one at any time").waitFor();
  await sim.page.locator("#screen").getByRole("button", { name: "Choose a picture" }).click();
  await sim.page.locator("#sheet").getByRole("button", { name: "face-2" }).click();
  assert.match(await sim.page.locator("#screen img").getAttribute("src"), /face-2\.svg$/);
  assert.ok(
    await sim.page
      .locator("#screen img")
      .evaluate((img) => img.decode().then(() => img.naturalWidth > 0)),
  );
  await sim.page.locator("#screen").getByRole("button", { name: "Give the number" }).click();
  await sim.page.locator("#sheet").getByRole("button", { name: "Decline" }).click();
  await phone("No number given: you can give it at any time").waitFor();
  await sim.page.locator("#screen").getByRole("button", { name: "Save" }).click();
  await phone("No name given: you can enter one at any time").waitFor();
  await press("back");
  await phone("Logged in").waitFor();
});

test("the profile page: closing the account asks first", async () => {
  await open();
  await sim.page.locator("#screen").getByText("Name, picture, phone").click();
  await sim.page.locator("#screen").getByRole("button", { name: "Close the account" }).click();
  await sim.page.locator("#sheet").getByText("deleted for good").waitFor();
  await sim.page.locator("#sheet").getByRole("button", { name: "No" }).click();
  assert.ok(!(await sim.page.locator("#sheet").isVisible()));
  assert.deepEqual((await acts()).slice(-1), ["close"]);
});

test("the profile page: one tap agrees to the privacy notice and gives the number", async () => {
  await open();
  await sim.page.locator("#screen").getByText("Name, picture, phone").click();
  await sim.page
    .locator("#screen")
    .getByRole("button", { name: "Accept the notice and give the number" })
    .click();
  await sim.page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await sim.page
    .locator("#screen")
    .getByText(/^138\d{8}$/)
    .waitFor();
  assert.equal(await sim.page.locator("#screen").getByText("Privacy", { exact: true }).count(), 0);
});

test("the profile page: the name is saved, the number comes, the name is kept", async () => {
  await open();
  await sim.page.locator("#screen").getByText("Name, picture, phone").click();
  await shows(["phone>wxlogind GET /v1/user", "wxlogind>phone 200"]);
  await sim.page.locator("#screen").getByRole("button", { name: "Agree" }).click();
  await sim.page.locator("#screen input").fill("小明");
  await sim.page.locator("#screen").getByRole("button", { name: "Save" }).click();
  await phone("Saved").waitFor();
  await shows(["phone>wxlogind PUT /v1/user", "wxlogind>phone 200"]);
  await sim.page.locator("#screen").getByRole("button", { name: "Give the number" }).click();
  await sim.page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await sim.page
    .locator("#screen")
    .getByText(/^138\d{8}$/)
    .waitFor();
  const rows = (await picture()).filter((row) => !/redis|users/.test(row));
  assert.deepEqual(
    rows.filter((row) => row.startsWith("phone")),
    ["phone>wechat getPhoneNumber", "phone>wxlogind POST /v1/user/phone"],
  );
  assert.ok(
    rows.includes("wxlogind>wechat POST /wxa/business/getuserphonenumber"),
    rows.join("\n"),
  );
  assert.doesNotMatch(
    await sim.page.locator("#rows").innerText(),
    /138\d{8}/,
    "the diagram has no number in full",
  );
  await sim.page.locator("#screen").getByRole("button", { name: "Verify the number now" }).click();
  await sim.page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await poll(
    async () => (await picture()).includes("phone>wechat getRealtimePhoneNumber"),
    "the real-time button asks WeChat",
  );
  await press("restart");
  await settled();
  await sim.page.locator("#screen").getByText("Name, picture, phone").click();
  const name = sim.page.locator("#screen input");
  await poll(async () => (await name.inputValue()) === "小明", "the name");
});

test("the user withdraws the phone number: WeChat tells wxlogind, which clears it", async () => {
  const withPhone = async () => {
    const answer = await fetch(`${sim.stack.internal}/internal/apps/${APPID}/users`);
    return (await answer.json()).users.filter((user) => user.phoneNumber).length;
  };
  await open();
  await phone("Logged in").waitFor();
  const before = await withPhone();
  await sim.page.locator("#screen").getByText("Name, picture, phone").click();
  await sim.page.locator("#screen").getByRole("button", { name: "Agree" }).click();
  await sim.page.locator("#screen").getByRole("button", { name: "Give the number" }).click();
  await sim.page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await poll(async () => (await withPhone()) === before + 1, "the number is kept");
  await press("withdraw");
  await settled();
  assert.equal((await acts()).at(-1), "withdraw");
  await sim.page.getByText("wxlogind has cleared it").waitFor();
  assert.equal(await withPhone(), before);
});
