// Commands: found by id, sequence, type, status and time; one whole, with its times drawn.

import { get, ofLane } from "./api.js";
import { badge, count, h, ms, named, problem, put, svg, time } from "./dom.js";
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
  if (!known.found.length) put(main, notSettled(id, lanes, known.waiting));
  for (const each of known.found) put(main, ...oneLane(each));
}

function notSettled(id, lanes, waiting) {
  const operated = lanes.filter((each) => each.operates);
  return h("div", { class: "card" },
    h("h2", {}, "Not settled in any lane"),
    h("p", {}, "It waits in a queue, was never published, or is older than the log. A lane that has a backlog or is paused may still have it."),
    waiting.map((each) => h("div", {}, h("h3", {}, each.type || `Lane ${each.lane}`), places(each), each.parent ? h("p", {}, ...relative(each.parent, "led to it")) : null)),
    h("div", { class: "acts" }, operated.map((each) => h("button", { onclick: () => cancel(each.name, id) }, `Cancel it in ${each.name}…`))));
}

function oneLane({ lane, entry, changes, letters, waits_behind: behind, latency_ms: waited, timeline }) {
  const fact = (title, value) => (value === null || value === undefined || value === "" ? null : h("div", {}, h("dt", {}, title), h("dd", {}, value)));
  const batch = timeline.batch_size === null ? null : `${count(timeline.place)} of ${count(timeline.batch_size)}`;
  return [
    h("section", { class: "card", "aria-label": `In lane ${lane}` },
      h("div", { class: "head" }, h("h2", {}, timeline.type || "not settled"), badge(timeline.standing.replace("_", " "), timeline.standing), h("span", { class: "soft" }, `lane ${lane}`)),
      places(timeline),
      behind ? h("p", {}, "It waits behind ", h("a", { class: "id", href: `#/commands/${behind}` }, behind)) : null,
      letters.length ? h("ul", {}, letters.map((each) => h("li", {}, "Dead letter ", h("a", { href: `#/letters/${encodeURIComponent(lane)}/${each.id}` }, `letter ${each.id}`), ` (${each.code}: ${each.reason}), since `, time(each.dead_at)))) : null,
      ...drawn(timeline),
      ...relatives(timeline),
      entry ? h("dl", { class: "facts long" }, fact("Sequence", count(entry.sequence)), fact("Epoch", count(entry.epoch)), fact("Waited", waited === null ? null : ms(waited)), fact("Place in its batch", batch), fact("Deliveries", timeline.attempts === null ? null : count(timeline.attempts)),
        fact("Actor", timeline.actor ? named(timeline.actor) : null), fact("Settled by", timeline.consumer), h("div", { class: "two" }, h("dt", {}, "Fingerprint"), h("dd", { class: "id" }, entry.fingerprint))) : null,
      changes.length ? h("div", {}, h("h3", {}, "Rows that it changed"), h("ul", {}, changes.map((each) =>
        h("li", {}, `${each.row_table}/${each.row_key}: ${each.how}${each.version === null ? "" : `, now version ${each.version}`}`)))) : null,
      entry && entry.result !== null ? h("div", {}, h("h3", {}, "Result"), h("pre", { tabindex: 0 }, entry.result)) : null),
  ];
}

function places({ where, why, todo, standing }) {
  const isStuck = Boolean(todo) || standing === "failed";
  return h("dl", { class: `answer ${isStuck ? "stuck" : standing === "applied" ? "" : "waits"}` },
    h("div", {}, h("dt", {}, "Where"), h("dd", { "data-answer": "where" }, where)),
    why ? h("div", {}, h("dt", {}, "Why"), h("dd", { "data-answer": "why" }, why)) : null,
    todo ? h("div", {}, h("dt", {}, "What to do"), h("dd", { "data-answer": "todo" }, todo)) : null);
}

// The moments on one axis: each bar is the time from the moment before it. The table says the same in figures.
const WORDS = {
  received: "Received", emitted: "Emitted by its lane", published: "Published to the broker", delivered: "Delivered to the lane's process",
  applied: "Its batch begun", committing: "Its batch applied, and sent to the database", committed: "Committed", answered: "Answered",
};

function drawn({ moments, clocks }) {
  if (!moments.length) return [];
  const last = Math.max(...moments.map((each) => each.ms), 0);
  const first = Math.min(...moments.map((each) => each.ms), 0);
  const span = Math.max(last - first, 0.001);
  const at = (value) => ((value - first) / span) * 100;
  const rows = moments.map((each, place) => {
    const before = place ? moments[place - 1].ms : each.ms;
    const from = Math.min(at(before), at(each.ms), 99);
    const width = Math.max(0.8, Math.abs(at(each.ms) - at(before)));
    return h("tr", { "data-moment": each.name },
      h("th", { scope: "row" }, WORDS[each.name] || each.name, each.at_latest ? h("span", { class: "soft" }, " at the latest") : null),
      h("td", { class: "number nowrap" }, `${each.ms.toFixed(1)} ms`),
      h("td", { class: "number nowrap" }, place ? `+${(each.ms - before).toFixed(1)}` : ""),
      h("td", { class: "span" }, svg("svg", { class: "track", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { class: "all", width: 100, height: 10 }),
        svg("rect", { class: each.clock === "lane" ? "part" : "other", x: Math.min(from, 99.2).toFixed(2), width: width.toFixed(2), height: 10 }))),
      h("td", {}, each.clock), h("td", { class: "nowrap" }, time(each.at)));
  });
  return [
    h("h3", {}, "Its times"),
    clocks ? h("p", { class: "why paused" }, clocks) : null,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Its times" }, h("table", { class: "moments" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Moment"), h("th", { scope: "col", class: "number" }, "Since the first"), h("th", { scope: "col", class: "number" }, "Took"), h("th", { scope: "col" }, "From the first to the last"), h("th", { scope: "col" }, "Clock"), h("th", { scope: "col" }, "At"))),
      h("tbody", {}, rows))),
  ];
}

const LED = { emitted: "emitted", effect: "asked for the call", result: "came to its result", continuation: "its outcome became", replay: "replayed as" };

function relatives({ parent, children, unnamed_children: unnamed }) {
  if (!parent && !children.length) return [];
  return [
    h("h3", {}, "What led to it, and what it led to"),
    h("ul", { class: "relatives" },
      parent ? h("li", { "data-relative": "parent" }, ...relative(parent, { emitted: "emitted it", effect: "asked for it", result: "is the call that it is the result of", continuation: "had the outcome that it is", replay: "had it replayed" }[parent.how])) : null,
      children.map((each) => h("li", { "data-relative": "child" }, `${LED[each.how]} `, ...relative(each))),
      unnamed ? h("li", {}, `and ${count(unnamed)} more`) : null),
  ];
}

function relative({ command_id: id, lane, type, standing }, words = "") {
  return [h("a", { class: "name", href: `#/commands/${id}`, title: id }, type || id), lane ? ` in ${lane} ` : " ", standing ? badge(standing.replace("_", " "), standing) : "", words ? ` ${words}` : ""];
}
