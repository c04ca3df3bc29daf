// Acts: each asks for a reason. And the page of those that were done.

import { get, ofLane, post } from "./api.js";
import { count, h, pretty, problem, put, say, time } from "./dom.js";

// Ask for a reason, and do it. `fields` are inputs beside; `act(values)` returns what to say.
export function askAndDo({ title, text, button, isBad = false, fields = [], act, opener = document.activeElement }) {
  const errors = h("div");
  const reason = h("input", { name: "reason", required: true, maxlength: 500, autocomplete: "off" });
  const submit = h("button", { class: isBad ? "bad" : "main", type: "submit" }, button);
  const form = h("form", { method: "dialog" },
    text ? h("p", {}, text) : null,
    ...fields,
    h("label", {}, "Reason (it is recorded with your name)", reason),
    errors,
    h("div", { class: "acts" }, h("button", { type: "button", onclick: () => box.close() }, "Back"), submit));
  const box = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    errors.replaceChildren();
    try {
      const said = await act(Object.fromEntries(new FormData(form)));
      box.close();
      if (said) say(said);
    } catch (error) {
      errors.replaceChildren(problem(error));
    } finally {
      submit.disabled = false;
    }
  });
  box.addEventListener("close", () => { box.remove(); if (opener && opener.isConnected) opener.focus(); });
  document.body.append(box);
  box.showModal();
  (form.querySelector("input") || submit).focus();
}

export function pause(lane) {
  askAndDo({
    title: `Pause ${lane}`, button: "Pause", isBad: true,
    text: "Nothing commits in this lane until it is resumed. Commands are still taken, and wait in order.",
    act: async ({ reason }) => (await post(ofLane(lane, "pause"), { reason })).said,
  });
}

export function resume(lane) {
  askAndDo({
    title: `Resume ${lane}`, button: "Resume", text: "The lane goes on with what waits.",
    act: async ({ reason }) => (await post(ofLane(lane, "resume"), { reason })).said,
  });
}

export function drain(lane) {
  askAndDo({
    title: `Drain ${lane}`, button: "Drain",
    text: "Wait until everything that is in the queue now is settled. What comes meanwhile comes after it.",
    act: async ({ reason }) => (await post(ofLane(lane, "drain"), { reason })).said,
  });
}

export function cancel(lane, id = "") {
  askAndDo({
    title: `Cancel a command of ${lane}`, button: "Cancel the command", isBad: true,
    text: "A command that is not settled yet is then never applied.",
    fields: [h("label", {}, "Command id", h("input", { name: "command_id", required: true, value: id, autocomplete: "off", class: "id" }))],
    act: async ({ reason, command_id }) => (await post(ofLane(lane, "cancel"), { reason, command_id })).said,
  });
}

export function actsPage(main, { lanes, query }) {
  const lane = lanes.some((each) => each.name === query.get("lane")) ? query.get("lane") : lanes[0].name;
  const body = h("tbody");
  const more = h("div", { class: "more" });
  const select = h("select", { onchange: (event) => { location.hash = `#/acts?lane=${encodeURIComponent(event.target.value)}`; } },
    lanes.map((each) => h("option", { selected: each.name === lane }, each.name)));
  put(main, 
    h("h1", {}, "Acts"),
    h("p", { class: "soft" }, "What operators did to a lane, with their reasons: here, and by the command line. The latest first."),
    h("div", { class: "card row" }, h("label", {}, "Lane", select)),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Acts" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Time", "Author", "Act", "Of", "Reason"].map((each) => h("th", { scope: "col" }, each)))), body)),
    more);
  const load = async (before) => {
    try {
      const page = await get(ofLane(lane, "acts"), { before });
      body.append(...page.acts.map((each) => h("tr", {},
        h("td", { class: "nowrap" }, time(each.done_at)), h("td", {}, each.author), h("td", {}, each.act),
        h("td", { class: "id" }, each.details === "{}" ? "" : pretty(each.details).replace(/^\{\n?|\n?\}$/g, "")), h("td", { class: "text" }, each.reason || "–"))));
      if (!body.children.length) body.append(h("tr", {}, h("td", { colspan: 5, class: "empty" }, "Nobody has done anything to this lane.")));
      more.replaceChildren(page.next ? h("button", { onclick: () => load(page.next) }, "Earlier ones") : h("span", { class: "soft" }, `${count(body.children.length)} shown`));
    } catch (error) { more.replaceChildren(problem(error)); }
  };
  load(null);
}
