// Commands: found by id, sequence, type, status and time; one whole, with its times drawn.

import { get, ofLane } from "./api.js";
import { badge, count, h, ms, problem, put, time } from "./dom.js";
import { recentRow } from "./lanes.js";
import { cancel } from "./operate.js";

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const STATUSES = ["applied", "rejected", "failed", "expired"];

export function commandsPage(main, { lanes, query }) {
  const lane = lanes.find((each) => each.name === query.get("lane")) || lanes[0];
  const given = (name) => query.get(name) || "";
  const rows = h("tbody");
  const more = h("div", { class: "more" });
  const find = h("form", { class: "card row", role: "search", "aria-label": "By id", onsubmit: (event) => {
    event.preventDefault();
    const id = find.querySelector("input").value.trim();
    if (ID.test(id)) location.hash = `#/commands/${id.toLowerCase()}`;
    else more.replaceChildren(problem(new Error("that is no command id: it is a UUID, such as 01a20505-b7c5-73ed-8a97-6b8d8dfcb689")));
  } }, h("label", {}, "Command id", h("input", { name: "id", size: 38, class: "id", autocomplete: "off" })), h("button", { class: "main" }, "Show"));
  const form = h("form", { class: "card row", role: "search", "aria-label": "In the log", onsubmit: (event) => {
    event.preventDefault();
    const values = [...new FormData(form)].filter(([, value]) => value);
    location.hash = `#/commands?${new URLSearchParams(values)}`;
  } },
    h("label", {}, "Lane", h("select", { name: "lane", onchange: () => form.requestSubmit() }, lanes.map((each) => h("option", { selected: each === lane }, each.name)))),
    h("label", {}, "Type", h("input", { name: "type", value: given("type"), autocomplete: "off" })),
    h("label", {}, "Status", h("select", { name: "status" }, h("option", { value: "" }, "any"), STATUSES.map((each) => h("option", { selected: given("status") === each }, each)))),
    h("label", {}, "Up to sequence", h("input", { name: "sequence", value: given("sequence"), inputmode: "numeric", pattern: "[0-9]{1,15}", size: 10 })),
    h("label", {}, "Before (UTC)", h("input", { name: "until", type: "datetime-local", step: 1, value: given("until") })),
    h("button", { class: "main" }, "Find"));
  put(main, 
    h("h1", {}, "Commands"), find, form,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Commands" }, h("table", { id: "commands" },
      h("thead", {}, h("tr", {}, ["Settled", "Lane", "Sequence", "Type", "Status", "Waited", "Actor", "Command"].map((each) =>
        h("th", { scope: "col", class: each === "Sequence" || each === "Waited" ? "number" : null }, each)))), rows)), more);
  const sequence = given("sequence");
  const load = async (before) => {
    try {
      const page = await get(ofLane(lane.name, "commands"), { type: given("type"), status: given("status"), until: given("until"), before });
      rows.append(...page.commands.map((each) => recentRow({ lane: lane.name, ...each })));
      if (!rows.children.length && !page.next) rows.append(h("tr", {}, h("td", { colspan: 8, class: "empty" }, "No command in the log is like that.")));
      const looked = page.next && page.commands.length < 50 ? `looked back to sequence ${count(page.next)}` : "";
      more.replaceChildren(page.next ? h("button", { onclick: () => load(page.next) }, "Earlier ones") : "", h("span", { class: "soft" }, looked));
    } catch (error) { more.replaceChildren(problem(error)); }
  };
  load(/^\d{1,15}$/.test(sequence) ? Number(sequence) + 1 : null);
}

export async function commandPage(main, { lanes, id }) {
  put(main, h("p", {}, h("a", { href: "#/commands" }, "All commands")), h("h1", {}, "Command ", h("span", { class: "id" }, id)));
  let known;
  try { known = await get(`/api/commands/${encodeURIComponent(id)}`); } catch (error) { put(main, problem(error)); return; }
  for (const text of known.away) put(main, problem(new Error(`not looked into: ${text}`)));
  if (!known.found.length) put(main, h("div", { class: "card" },
    h("h2", {}, "Not settled in any lane"),
    h("p", {}, "It waits in a queue, was never published, or is older than the log. A lane that has a backlog or is paused may still have it."),
    h("div", { class: "acts" }, lanes.filter((each) => each.operates).map((each) => h("button", { onclick: () => cancel(each.name, id) }, `Cancel it in ${each.name}…`)))));
  for (const each of known.found) put(main, ...oneLane(id, each));
}

function oneLane(id, { lane, entry, changes, letters, waits_for: key, waits_behind: behind, latency_ms: waited }) {
  const fact = (title, value) => (value === null || value === undefined || value === "" ? null : h("div", {}, h("dt", {}, title), h("dd", {}, value)));
  const issued = issuedAt(id);
  const steps = [
    issued && { at: issued, text: "issued, by the time in its id" },
    behind && { at: null, kind: "warn", text: h("span", {}, `waits for ${key}, behind a command that failed: `, h("a", { class: "id", href: `#/commands/${behind}` }, behind)) },
    entry && { at: entry.settled_at, kind: entry.status === "failed" ? "bad" : entry.status === "applied" ? "" : "warn",
      text: `${entry.status} in ${lane} as number ${count(entry.sequence)}, in epoch ${count(entry.epoch)}`, waited },
    ...letters.map((each) => ({ at: each.dead_at, kind: "bad",
      text: h("span", {}, "became a dead letter: ", h("a", { href: `#/letters/${encodeURIComponent(lane)}/${each.id}` }, `letter ${each.id}`), ` (${each.code}: ${each.reason})`) })),
  ].filter(Boolean);
  return [
    h("section", { class: "card", "aria-label": `In lane ${lane}` },
      h("div", { class: "head" }, h("h2", {}, entry ? entry.type : "not settled"), entry ? badge(entry.status) : badge("waits", "pending"), h("span", { class: "soft" }, `lane ${lane}`)),
      entry && entry.error_code ? h("p", { class: "problem" }, entry.error_message ? `${entry.error_code}: ${entry.error_message}` : entry.error_code) : null,
      h("h3", {}, "Its times"),
      h("ol", { class: "time" }, steps.map((each) => h("li", { class: each.kind || null }, h("div", {}, each.text),
        h("div", { class: "at" }, each.at ? time(each.at) : "now", each.waited !== undefined && each.waited !== null ? `, ${ms(each.waited)} after it was issued` : "")))),
      entry ? h("dl", { class: "facts long" }, fact("Sequence", count(entry.sequence)), fact("Epoch", count(entry.epoch)), fact("Waited", ms(waited)), fact("Actor", entry.actor),
        fact("Fingerprint", h("span", { class: "id" }, entry.fingerprint))) : null,
      changes.length ? h("div", {}, h("h3", {}, "Rows that it changed"), h("ul", {}, changes.map((each) =>
        h("li", {}, `${each.row_table}/${each.row_key}: ${each.how}${each.version === null ? "" : `, now version ${each.version}`}`)))) : null,
      entry && entry.result !== null ? h("div", {}, h("h3", {}, "Result"), h("pre", { tabindex: 0 }, entry.result)) : null),
  ];
}

// A UUID of version 7 begins with the milliseconds since 1970.
function issuedAt(id) {
  if (id[14] !== "7") return null;
  const at = new Date(parseInt(id.slice(0, 8) + id.slice(9, 13), 16));
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}
